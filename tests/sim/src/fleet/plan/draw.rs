//! The run of a seed.
//!
//! The draw of kinds that have been there for long is left as it is: their seeds keep their runs.

use model::Random;
use mx_base::Duration;

use super::{Blow, Fault, FaultName, Kind, Part, Plan, Weather, Workload};

/// What somebody wants of a run instead of leaving it to the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// 1 to 16.
    pub nodes: Option<usize>,
    pub workload: Option<Workload>,
    /// Nothing else goes wrong.
    pub fault: Option<FaultName>,
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("small")
}

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Plan {
        let kind = match seed % 10 {
            0 => Kind::Calm,
            1 | 2 => Kind::OneCrash,
            3 => Kind::Bystanders,
            4 => Kind::Coming,
            5 | 6 => Kind::Any,
            // 98 stays what it was: it finds a broken rule out (`proof.md`).
            8 if seed % 100 != 98 => Kind::Aimed,
            _ => Kind::Harsh,
        };
        let mut plan = Plan::of_kind(seed, kind);
        // Some of the harsh ones and of the former ones: chosen apart, so that the others stay what they
        // were.
        match seed % 20 {
            17 => Plan { workload: Workload::FileLocks, ..plan },
            8 | 16 => Plan { workload: Workload::Tree, ..plan },
            10 => {
                plan.freeze(100);
                plan.check_in_use(100);
                plan
            }
            _ => plan,
        }
    }

    /// The run of a seed as somebody wants it.
    pub fn wished(seed: u64, wishes: Wishes) -> Plan {
        let mut plan = match (wishes.nodes, wishes.fault) {
            (None, None) => Plan::of(seed),
            (_, Some(FaultName::Aimed)) => Plan::aimed(seed, wishes.nodes),
            _ => Plan::harsh(seed, wishes),
        };
        if let Some(workload) = wishes.workload {
            plan.workload = workload;
        }
        plan
    }

    pub fn of_kind(seed: u64, kind: Kind) -> Plan {
        match kind {
            Kind::Calm | Kind::OneCrash | Kind::Coming | Kind::Any => Plan::former(seed, kind),
            Kind::Bystanders => Plan::bystanders(seed),
            Kind::Apart => Plan::apart(seed),
            Kind::Harsh => Plan::harsh(seed, Wishes::default()),
            Kind::Aimed => Plan::aimed(seed, None),
        }
    }

    fn new(seed: u64, kind: Kind) -> Plan {
        Plan {
            seed,
            kind,
            nodes: 1,
            weather: Weather::CALM,
            workload: Workload::Mixed,
            file_systems: 1,
            workers: 3,
            victims: 0,
            drift: 0,
            length: Duration::ZERO,
            faults: Vec::new(),
        }
    }

    fn former(seed: u64, kind: Kind) -> Plan {
        let random = &mut Random::new(seed ^ 0x51e7);
        let fewest = if kind == Kind::Calm { 1 } else { 2 };
        let nodes = index(fewest + random.below(5 - fewest + 1)).min(index(2 + random.below(4)));
        let weather = match kind {
            Kind::Calm | Kind::Coming => random.pick(&[Weather::CALM, Weather::ROUGH]),
            Kind::OneCrash => Weather::CALM,
            Kind::Any | Kind::Bystanders | Kind::Apart | Kind::Harsh | Kind::Aimed => {
                random.pick(&[Weather::CALM, Weather::ROUGH, Weather::ROUGH, Weather::STORM])
            }
        };
        let length = Duration::from_millis(4_000 + random.below(4_000));
        let mut plan = Plan { nodes, weather, length, ..Plan::new(seed, kind) };
        let count = match kind {
            Kind::Calm => 0,
            Kind::OneCrash => 1,
            Kind::Coming => 2 + random.below(4),
            Kind::Any | Kind::Bystanders | Kind::Apart | Kind::Harsh | Kind::Aimed => {
                1 + random.below(6)
            }
        };
        for _ in 0..count {
            let at = match kind {
                Kind::OneCrash => 1_000 + random.below(2_000),
                Kind::Calm
                | Kind::Bystanders
                | Kind::Coming
                | Kind::Apart
                | Kind::Any
                | Kind::Harsh
                | Kind::Aimed => random.below(7_000),
            };
            let fault = plan.draw(random);
            plan.faults.push((Duration::from_millis(at), fault));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn draw(&self, random: &mut Random) -> Fault {
        let pick = |random: &mut Random| index(random.below(self.nodes as u64));
        let (host, other) = (pick(random), pick(random));
        let restart = Duration::from_millis(random.below(4_000));
        let short = Duration::from_millis(50 + random.below(1_200));
        let long = Duration::from_millis(200 + random.below(5_000));
        let length = if random.chance(50) { short } else { long };
        match self.kind {
            Kind::OneCrash => return Fault::Crash { host, restart },
            Kind::Coming => return Fault::Leave { host, restart },
            Kind::Calm | Kind::Bystanders | Kind::Apart | Kind::Any | Kind::Harsh | Kind::Aimed => {
            }
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

    /// One death, or two together, among 3 to 6.
    fn bystanders(seed: u64) -> Plan {
        let random = &mut Random::new(seed ^ 0xb457);
        let nodes = index(3 + random.below(4));
        let deaths = if nodes >= 5 && random.chance(30) { 2 } else { 1 };
        let first = index(random.below(nodes as u64));
        let at = 1_500 + random.below(2_000);
        let draw = |i| {
            let (host, restart) =
                ((first + i) % nodes, Duration::from_millis(1_500 + random.below(2_000)));
            let fault = match random.chance(50) {
                true => Fault::Crash { host, restart },
                false => Fault::PowerOff { host, restart },
            };
            (Duration::from_millis(at), fault)
        };
        let faults = (0..deaths).map(draw).collect();
        let length = Duration::from_millis(5_500);
        // Counters free no blocks: then nobody else uses the groups of bystanders.
        let workload = random.pick(&[Workload::Mixed, Workload::Counters]);
        Plan { nodes, workers: 2, workload, length, faults, ..Plan::new(seed, Kind::Bystanders) }
    }

    /// Two file systems, and a death whose journal in the first cannot be read for seconds.
    fn apart(seed: u64) -> Plan {
        let random = &mut Random::new(seed ^ 0xa9a7);
        let nodes = index(3 + random.below(3));
        let (host, restart) =
            (index(random.below(nodes as u64)), Duration::from_millis(500 + random.below(2_000)));
        // Everybody has mounted both by then.
        let at = Duration::from_millis(4_000 + random.below(1_000));
        let length = at + Duration::from_millis(6_000);
        let faults = vec![(at, Fault::LoseJournal { host, restart })];
        let file_systems = 2;
        Plan { nodes, file_systems, workers: 2, length, faults, ..Plan::new(seed, Kind::Apart) }
    }

    /// One death, and what is aimed at whoever recovers it; at times at whoever takes that over, too.
    fn aimed(seed: u64, nodes: Option<usize>) -> Plan {
        let random = &mut Random::new(seed ^ 0xa13d);
        let nodes = nodes.unwrap_or(index(3 + random.below(4)));
        let weather = random.pick(&[
            Weather::CALM,
            Weather::CALM,
            Weather::ROUGH,
            Weather::ROUGH,
            Weather::STORM,
        ]);
        let workload = match random.chance(25) {
            true => Workload::Registers,
            false => Workload::Mixed,
        };
        let drift = if random.chance(20) { random.pick(&[500, 10_000, 40_000]) } else { 0 };
        // Everybody has mounted by then, mostly.
        let at = Duration::from_millis(2_000 + random.below(1_000));
        let length = at + Duration::from_millis(2_500 + random.below(1_500));
        let plan = Plan { nodes, weather, workload, workers: 2, ..Plan::new(seed, Kind::Aimed) };
        let mut plan = Plan { drift, length, ..plan };
        let first = random.pick(&[FaultName::Crash, FaultName::Crash, FaultName::PowerOff]);
        let first = plan.named(first, random);
        plan.faults.push((at, first));
        for _ in 0..1 + u64::from(random.chance(60)) + u64::from(random.chance(30)) {
            let shot = plan.named(FaultName::Aimed, random);
            plan.faults.push((at, shot));
        }
        plan
    }

    fn harsh(seed: u64, wishes: Wishes) -> Plan {
        let random = &mut Random::new(seed ^ 0x4a25);
        let drawn = match random.below(100) {
            0..70 => 2 + random.below(4),
            70..88 => 6 + random.below(3),
            _ => 9 + random.below(8),
        };
        let nodes = wishes.nodes.unwrap_or(index(drawn));
        let workers = match nodes {
            0..=5 => 3,
            6..=8 => 2,
            _ => 1,
        };
        let mut weathers = vec![Weather::CALM, Weather::ROUGH, Weather::ROUGH];
        if nodes <= 8 {
            weathers.push(Weather::STORM);
        }
        let weather = random.pick(&weathers);
        let workload = match random.chance(25) {
            true => Workload::Registers,
            false => Workload::Mixed,
        };
        let length = Duration::from_millis(3_000 + random.below(4_000));
        let drifts = random.chance(40) || wishes.fault == Some(FaultName::Drift);
        let drift = if drifts { random.pick(&[500, 10_000, 40_000]) } else { 0 };
        let plan =
            Plan { nodes, workers, weather, workload, length, ..Plan::new(seed, Kind::Harsh) };
        let mut plan = Plan { drift, victims: 3, ..plan };
        if wishes.fault == Some(FaultName::Drift) {
            return plan;
        }
        for _ in 0..1 + random.below(7) {
            let at = Duration::from_millis(random.below(6_500));
            let name = wishes.fault.unwrap_or_else(|| random.pick(&LIKELY));
            let fault = plan.named(name, random);
            plan.faults.push((at, fault));
        }
        if wishes.fault.is_none() {
            plan.damage();
            plan.flip_head();
            plan.fill();
            plan.freeze(12);
            plan.check_in_use(25);
            plan.fail_power_behind_death();
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Damaged media, in a part of the runs. Drawn apart: the rest of a seed stays what it was.
    fn damage(&mut self) {
        let random = &mut Random::new(self.seed ^ 0xda3a);
        if random.chance(75) {
            return;
        }
        for _ in 0..1 + random.below(3) {
            let at = Duration::from_millis(random.below(6_500));
            let name = random.pick(&[FaultName::BitFlip, FaultName::BitFlip, FaultName::ReadError]);
            let fault = self.named(name, random);
            self.faults.push((at, fault));
        }
    }

    /// A damaged head of a slot whose journal matters, in a part of the runs. Drawn apart as well.
    fn flip_head(&mut self) {
        let random = &mut Random::new(self.seed ^ 0x4ead);
        if random.chance(10) {
            let at = Duration::from_millis(random.below(6_000));
            let fault = self.named(FaultName::HeadFlip, random);
            self.faults.push((at, fault));
        }
    }

    /// A device that fills up beside everything else, in a part of the runs. Drawn apart as well.
    fn fill(&mut self) {
        let random = &mut Random::new(self.seed ^ 0xf0_11ed);
        if random.chance(12) {
            let at = Duration::from_millis(random.below(5_000));
            let fault = self.named(FaultName::DeviceFull, random);
            self.faults.push((at, fault));
        }
    }

    /// Somebody makes a copy of the device, in a part of the runs. Drawn apart as well.
    fn freeze(&mut self, percent: u64) {
        let random = &mut Random::new(self.seed ^ 0xf0_2e2e);
        if random.chance(percent) {
            for _ in 0..1 + random.below(3) {
                let at = Duration::from_millis(random.below(6_000));
                let fault = self.named(FaultName::Freeze, random);
                self.faults.push((at, fault));
            }
        }
    }

    /// Somebody checks the file system while it is used, in a part of the runs. Drawn apart as well.
    fn check_in_use(&mut self, percent: u64) {
        let random = &mut Random::new(self.seed ^ 0x0c_4ec4);
        if random.chance(percent) {
            for _ in 0..1 + random.below(2) {
                let at = Duration::from_millis(500 + random.below(5_000));
                let fault = self.named(FaultName::Check, random);
                self.faults.push((at, fault));
            }
        }
    }

    /// The power fails shortly behind a death, in a part of the runs. Drawn apart as well.
    fn fail_power_behind_death(&mut self) {
        let random = &mut Random::new(self.seed ^ 0x0ff0);
        if random.chance(10) {
            let at = Duration::from_millis(random.below(6_000));
            let restart = Duration::from_millis(4_000);
            let host = index(random.below(self.nodes as u64));
            self.faults.push((at, Fault::Crash { host, restart }));
            let behind = Duration::from_millis(50 + random.below(400));
            self.faults.push((at + behind, Fault::PowerFailure));
        }
    }

    fn named(&self, name: FaultName, random: &mut Random) -> Fault {
        let ms = Duration::from_millis;
        let count = self.nodes as u64;
        let host = index(random.below(count));
        // Somebody else, if there is one.
        let other = (host + index(1 + random.below(count.max(2) - 1))) % self.nodes;
        let restart = ms(random.below(4_000));
        // Shorter than every timer, about as long as those, longer.
        let length = ms(match random.below(4) {
            0 => 1 + random.below(90),
            1 => 100 + random.below(700),
            2 => 500 + random.below(2_500),
            _ => 2_000 + random.below(10_000),
        });
        let percent = 1 + random.below(100);
        match name {
            FaultName::Crash => Fault::Crash { host, restart },
            FaultName::CrashStep => {
                Fault::CrashStep { host, steps: 1 + random.below(400), restart }
            }
            FaultName::PowerOff => Fault::PowerOff { host, restart },
            FaultName::Pause => Fault::Pause { host, length },
            FaultName::Partition => {
                Fault::Partition { mask: random.below(1 << self.nodes), length }
            }
            FaultName::OneWay => Fault::OneWay { from: host, to: other, length },
            FaultName::SlowLink => {
                Fault::SlowLink { from: host, to: other, extra: ms(10 + random.below(600)), length }
            }
            FaultName::Reorder => Fault::Reorder { spread: ms(5 + random.below(300)), length },
            FaultName::BreakConnections => Fault::BreakConnections { percent },
            FaultName::HalfOpen => Fault::HalfOpen { percent, late: ms(1 + random.below(800)) },
            FaultName::CutStorage => Fault::CutStorage { host, length },
            FaultName::SlowStorage => {
                Fault::SlowStorage { host, extra: ms(5 + random.below(800)), length }
            }
            FaultName::StuckWrite => Fault::StuckWrite { host, length },
            FaultName::LateWrite => Fault::LateWrite {
                host,
                hold: ms(random.below(60)),
                late: ms(random.below(6_000)),
                restart,
            },
            FaultName::ReadError => {
                Fault::ReadError { victim: index(random.below(self.victims as u64)) }
            }
            FaultName::BitFlip => Fault::BitFlip {
                victim: index(random.below(self.victims as u64)),
                bit: random.below(4096 * 8),
            },
            FaultName::HeadFlip => Fault::HeadFlip {
                host,
                copy: index(random.below(2)),
                bit: random.below(4096 * 8),
                restart,
            },
            FaultName::DeviceFull => Fault::DeviceFull { host, length },
            FaultName::Freeze => Fault::Freeze { host, length: ms(1 + random.below(1_500)) },
            FaultName::Check => Fault::Check { host },
            FaultName::WallJump | FaultName::Drift => {
                let seconds = [-1_000_000, -3_600, -1, 1, 3_600, 1_000_000];
                Fault::WallJump { host, seconds: random.pick(&seconds) }
            }
            FaultName::Leave => Fault::Leave { host, restart },
            FaultName::PowerFailure => Fault::PowerFailure,
            FaultName::Aimed => {
                // As many that are near as that are far.
                let far = 2 << random.below(10);
                let steps = 1 + random.below(far);
                let (part, blow) = (random.pick(&PARTS), random.pick(&BLOWS));
                Fault::Aimed { part, steps, blow, restart }
            }
        }
    }
}

/// Faults in the shares in which they are drawn. Damaged media and full devices are drawn apart.
const LIKELY: [FaultName; 28] = [
    FaultName::Crash,
    FaultName::Crash,
    FaultName::CrashStep,
    FaultName::CrashStep,
    FaultName::CrashStep,
    FaultName::PowerOff,
    FaultName::Pause,
    FaultName::Pause,
    FaultName::Pause,
    FaultName::Partition,
    FaultName::OneWay,
    FaultName::SlowLink,
    FaultName::SlowLink,
    FaultName::Reorder,
    FaultName::BreakConnections,
    FaultName::HalfOpen,
    FaultName::HalfOpen,
    FaultName::CutStorage,
    FaultName::SlowStorage,
    FaultName::StuckWrite,
    FaultName::LateWrite,
    FaultName::LateWrite,
    FaultName::StuckWrite,
    FaultName::SlowStorage,
    FaultName::PowerOff,
    FaultName::WallJump,
    FaultName::Leave,
    FaultName::PowerFailure,
];

/// Whom shots are aimed at, and with what, in the shares in which they are drawn.
const PARTS: [Part; 10] = [
    Part::Coordinator,
    Part::Candidate,
    Part::Administrator,
    Part::Administrator,
    Part::Heir,
    Part::Heir,
    Part::Recoverer,
    Part::Recoverer,
    Part::Recoverer,
    Part::Bystander,
];
const BLOWS: [Blow; 10] = [
    Blow::Crash,
    Blow::Crash,
    Blow::Crash,
    Blow::Crash,
    Blow::Crash,
    Blow::Crash,
    Blow::Crash,
    Blow::PowerOff,
    Blow::Leave,
    Blow::Return,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_was_written_down_is_the_same_run() {
        for seed in 0..200 {
            let plan = Plan::of(seed);
            assert_eq!(Plan::from_json(&plan.to_json()).expect("what was written"), plan);
        }
    }

    #[test]
    fn what_is_wished_for_is_what_comes() {
        for (name, text) in FaultName::ALL {
            let wishes = Wishes { nodes: Some(4), workload: None, fault: Some(name) };
            let plan = Plan::wished(9, wishes);
            assert_eq!(plan.nodes, 4);
            if name == FaultName::Drift {
                assert!(plan.drift > 0 && plan.faults.is_empty());
            } else {
                assert!(plan.to_json().contains(&format!("\"{text}\"")), "{text}: {plan:?}");
            }
        }
    }

    #[test]
    fn clusters_of_every_size_are_drawn() {
        let sizes: std::collections::BTreeSet<usize> =
            (0..2_000).map(|seed| Plan::of(seed).nodes).collect();
        assert_eq!(sizes, (1..=16).collect());
    }
}
