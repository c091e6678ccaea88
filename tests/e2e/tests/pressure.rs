//! Little memory, and places on the device that are used again.

mod rounds;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Fixture, wait};
use rounds::rounds;

const PATIENCE: Duration = Duration::from_secs(100);

/// Memory of the writers, with what the kernel caches for them: a small part of what they write.
const LIMIT: u64 = 32 << 20;

/// A group of processes with little memory, of either version of control groups; gone when dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where this machine lets nobody make one.
    fn make() -> Option<Group> {
        let name = format!("matrixfs-e2e-{}", std::process::id());
        let v2 = Path::new("/sys/fs/cgroup").join(&name);
        let v1 = Path::new("/sys/fs/cgroup/memory").join(&name);
        for (folder, file) in [(v2, "memory.max"), (v1, "memory.limit_in_bytes")] {
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Group(folder);
            if fs::write(group.0.join(file), LIMIT.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have been waited for; the kernel may need a moment to let go.
        let _ = wait::until("the end of the control group", Duration::from_secs(5), || {
            Ok(fs::remove_dir(&self.0).is_ok().then_some(()))
        });
    }
}

#[test]
fn writers_with_little_memory_finish() {
    let cluster = Fixture::of("pressure-memory", 2);
    // Where nobody may make a group they have to finish all the same.
    let group = Group::make();
    let join = group.as_ref().map(|group| group.0.join("cgroup.procs"));
    let join = join.map(|file| format!("echo $$ > {} && ", file.display())).unwrap_or_default();
    let mut writers = Vec::new();
    for node in cluster.nodes() {
        let dir = cluster.mount(node);
        // 128 MiB by write(2), four times what all have.
        let write = format!("dd if=/dev/zero of=big{node} bs=1M count=128 conv=fsync");
        let script = format!("{join}{write}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(dir).stderr(Stdio::null());
        writers.push(shell.spawn().expect("sh starts"));
    }
    let ended = wait::until("the writers", PATIENCE, || {
        let mut ended = Vec::new();
        for writer in &mut writers {
            ended.extend(writer.try_wait()?);
        }
        Ok((ended.len() == 2).then_some(ended))
    });
    for writer in &mut writers {
        let _ = writer.kill();
    }
    let ended = ended.expect("they finish");
    assert!(ended.iter().all(std::process::ExitStatus::success), "{ended:?}");
    for (reader, written) in [(1, 2), (2, 1)] {
        let length = fs::metadata(cluster.mount(reader).join(format!("big{written}")));
        assert_eq!(length.expect("it is there").len(), 128 << 20);
    }
    for mut writer in writers {
        let _ = writer.wait();
    }
    cluster.finish();
}

/// What must never be seen in any other file.
const MARKER: &[u8; 16] = b"<secret marker!>";

fn marked(bytes: u64) -> Vec<u8> {
    let length = usize::try_from(bytes).expect("small");
    MARKER.iter().copied().cycle().take(length).collect()
}

/// Fills most of the device with the marker on one node, and deletes it on the other.
fn write_and_delete(here: &Path, there: &Path) -> anyhow::Result<()> {
    for number in 0..12 {
        let file = File::create(here.join(format!("marked{number}")))?;
        match file.write_all_at(&marked(8 << 20), 0) {
            Err(error) if error.kind() != ErrorKind::StorageFull => return Err(error.into()),
            _ => file.sync_all()?,
        }
    }
    for number in 0..12 {
        fs::remove_file(there.join(format!("marked{number}")))?;
    }
    File::open(there)?.sync_all()?;
    Ok(())
}

/// Files with holes, with ends inside a block, and not synced: where old contents would show.
fn use_again(dir: &Path) -> anyhow::Result<()> {
    for number in 0..200_u64 {
        let path = dir.join(format!("new{number}"));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let written = match number % 4 {
            0 => file.write_all(&[b'x'; 100]),
            1 => file.write_all_at(&[b'y'; 5000], 100_000),
            2 => file.set_len(50_000),
            _ => file.write_all(&vec![b'z'; 70_000]),
        };
        match written {
            Err(error) if error.kind() != ErrorKind::StorageFull => return Err(error.into()),
            _ => {}
        }
        if number % 3 == 0 {
            file.set_len(200_000)?;
            if number % 2 == 0 {
                file.sync_all()?;
            }
        }
    }
    Ok(())
}

fn expect_no_marker(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        let shows = bytes.windows(MARKER.len()).any(|window| window == MARKER);
        anyhow::ensure!(!shows, "{} shows what another file contained", path.display());
    }
    Ok(())
}

#[test]
fn what_a_deleted_file_contained_shows_nowhere_also_after_a_crash() {
    let mut cluster = Fixture::sized("pressure-marker", 2, 160 << 20);
    for _ in 0..rounds(2, 20) {
        let (first, second) = (cluster.mount(1), cluster.mount(2));
        let dir = second.clone();
        wait::within("using space again", PATIENCE, move || {
            write_and_delete(&first, &second)?;
            use_again(&second)?;
            expect_no_marker(&second)?;
            expect_no_marker(&first)
        })
        .expect("nothing shows");
        wait::within("using space again, before a crash", PATIENCE, move || use_again(&dir))
            .expect("written");
        let killed = cluster.kill(2).expect("it is killed");
        cluster.until_recovered(&killed, PATIENCE).expect("recovered");
        cluster.start(2).expect("it starts again");
        for node in cluster.nodes() {
            let dir = cluster.mount(node);
            let looked = wait::within("looking", PATIENCE, move || expect_no_marker(&dir));
            looked.expect("nothing shows after a crash");
        }
        let dir = cluster.mount(1);
        wait::within("clearing", PATIENCE, move || {
            for entry in fs::read_dir(&dir)? {
                fs::remove_file(entry?.path())?;
            }
            Ok(())
        })
        .expect("everything can be removed");
    }
    cluster.finish();
}
