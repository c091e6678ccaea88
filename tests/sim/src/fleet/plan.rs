//! What a run of a seed is like: how many nodes, how fast everything is, what goes wrong when.

use model::Random;
use mx_base::Duration;

/// How fast and how reliable the world is, apart from faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Longest delay of a frame, in microseconds.
    pub network_delay: u64,
    /// Longest delay of a request to the arbiter on each way, and of its execution.
    pub storage_delay: u64,
    /// In percent: a fence is answered as failed, or late.
    pub mishap: u64,
}

impl Weather {
    pub const CALM: Weather = Weather { network_delay: 300, storage_delay: 200, mishap: 0 };
    pub const ROUGH: Weather = Weather { network_delay: 8_000, storage_delay: 3_000, mishap: 10 };
    pub const STORM: Weather = Weather { network_delay: 40_000, storage_delay: 20_000, mishap: 30 };
}

/// Something that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process ends; its host closes its connections. A new one starts after so long.
    Crash {
        host: usize,
        restart: Duration,
    },
    /// The host is silent from now on; its process is gone.
    PowerOff {
        host: usize,
        restart: Duration,
    },
    /// The tasks of the process do not run for so long.
    Pause {
        host: usize,
        length: Duration,
    },
    /// Hosts in the mask and others hear nothing of each other for so long.
    Partition {
        mask: u64,
        length: Duration,
    },
    OneWay {
        from: usize,
        to: usize,
        length: Duration,
    },
    CutStorage {
        host: usize,
        length: Duration,
    },
    BreakConnections {
        percent: u64,
    },
    /// The file system is unmounted, the node leaves and comes back after so long.
    Leave {
        host: usize,
        restart: Duration,
    },
    /// Every process crashes at once, and the device loses what was not durable.
    PowerFailure,
}

/// What a run is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing goes wrong.
    Calm,
    /// One process crashes and comes back.
    OneCrash,
    /// Nodes come and go in good order.
    Coming,
    /// Anything.
    Any,
}

/// A run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub nodes: usize,
    pub weather: Weather,
    /// Tasks of applications on every node.
    pub workers: usize,
    /// How long the work goes on before everything heals.
    pub length: Duration,
    /// When, from the beginning of the work.
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Plan {
        let kind = match seed % 10 {
            0 => Kind::Calm,
            1..=3 => Kind::OneCrash,
            4 => Kind::Coming,
            _ => Kind::Any,
        };
        Plan::of_kind(seed, kind)
    }

    pub fn of_kind(seed: u64, kind: Kind) -> Plan {
        let random = &mut Random::new(seed ^ 0x51e7);
        let index = |n: u64| usize::try_from(n).expect("small");
        let fewest = if kind == Kind::Calm { 1 } else { 2 };
        let nodes = index(fewest + random.below(5 - fewest + 1)).min(index(2 + random.below(4)));
        let weather = match kind {
            Kind::Any => {
                random.pick(&[Weather::CALM, Weather::ROUGH, Weather::ROUGH, Weather::STORM])
            }
            Kind::Calm | Kind::Coming => random.pick(&[Weather::CALM, Weather::ROUGH]),
            Kind::OneCrash => Weather::CALM,
        };
        let length = Duration::from_millis(4_000 + random.below(4_000));
        let mut plan = Plan { seed, kind, nodes, weather, workers: 3, length, faults: Vec::new() };
        let count = match kind {
            Kind::Calm => 0,
            Kind::OneCrash => 1,
            Kind::Coming => 2 + random.below(4),
            Kind::Any => 1 + random.below(6),
        };
        for _ in 0..count {
            let at = match kind {
                Kind::OneCrash => 1_000 + random.below(2_000),
                Kind::Calm | Kind::Coming | Kind::Any => random.below(7_000),
            };
            let fault = plan.draw(random);
            plan.faults.push((Duration::from_millis(at), fault));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn draw(&self, random: &mut Random) -> Fault {
        let pick =
            |random: &mut Random| usize::try_from(random.below(self.nodes as u64)).expect("small");
        let (host, other) = (pick(random), pick(random));
        let restart = Duration::from_millis(random.below(4_000));
        let short = Duration::from_millis(50 + random.below(1_200));
        let long = Duration::from_millis(200 + random.below(5_000));
        let length = if random.chance(50) { short } else { long };
        match self.kind {
            Kind::OneCrash => return Fault::Crash { host, restart },
            Kind::Coming => return Fault::Leave { host, restart },
            Kind::Calm | Kind::Any => {}
        }
        match random.below(12) {
            0..=2 => Fault::Crash { host, restart },
            3 => Fault::PowerOff { host, restart },
            4 | 5 => Fault::Pause { host, length },
            6 => Fault::Partition { mask: random.next_u64(), length },
            7 if host != other => Fault::OneWay { from: host, to: other, length },
            7 | 8 => Fault::CutStorage { host, length },
            9 => Fault::BreakConnections { percent: 1 + random.below(99) },
            10 => Fault::Leave { host, restart },
            _ => Fault::PowerFailure,
        }
    }
}
