//! What one node changes the others see, with the kernel's caches of all of them warm (I8).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Fixture, wait};

const PATIENCE: Duration = Duration::from_secs(40);

/// Runs on the mounts of two nodes, once each way, under a watchdog.
fn both_ways(name: &str, nodes: u16, act: fn(&Path, &Path) -> anyhow::Result<()>) {
    let cluster = Fixture::of(name, nodes);
    let (first, last) = (cluster.mount(1), cluster.mount(nodes));
    for (way, a, b) in [("there", first.clone(), last.clone()), ("back", last, first)] {
        let (a, b) = (a.join(way), b.join(way));
        let done = wait::within(way, PATIENCE, move || {
            fs::create_dir(&a)?;
            act(&a, &b)
        });
        done.expect("the same on both nodes");
    }
    cluster.finish();
}

fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> anyhow::Result<()> {
    anyhow::ensure!(found == expected, "{what}: {found:?}, expected {expected:?}");
    Ok(())
}

#[test]
fn data_and_size_are_seen_by_a_reader_that_has_them_cached() {
    both_ways("coherence-data", 2, |a, b| {
        let (here, there) = (a.join("file"), b.join("file"));
        fs::write(&here, b"")?;
        let mut writer = OpenOptions::new().read(true).write(true).open(&here)?;
        let mut reader = File::open(&there)?;
        let mut expected = Vec::new();
        for round in 0..50_u8 {
            writer.write_all(&[round; 777])?;
            expected.extend([round; 777]);
            // The open descriptor, and a new one; twice, so that the second comes from the cache.
            for _ in 0..2 {
                let mut found = Vec::new();
                reader.seek(SeekFrom::Start(0))?;
                reader.read_to_end(&mut found)?;
                expect("by descriptor", &found, &expected)?;
                expect("by name", &fs::read(&there)?, &expected)?;
                expect("size", &fs::metadata(&there)?.len(), &(expected.len() as u64))?;
            }
        }
        for round in 0..50_u8 {
            let at = usize::from(round) * 700;
            writer.write_all_at(&[!round; 100], at as u64)?;
            expected[at..at + 100].fill(!round);
            expect("overwritten", &fs::read(&there)?, &expected)?;
        }
        writer.set_len(5000)?;
        expected.truncate(5000);
        expect("cut", &fs::read(&there)?, &expected)?;
        writer.set_len(9000)?;
        expected.resize(9000, 0);
        expect("grown", &fs::read(&there)?, &expected)
    });
}

#[test]
fn two_nodes_write_one_file_in_turn_and_each_reads_what_the_other_wrote() {
    both_ways("coherence-turns", 3, |a, b| {
        let (here, there) = (a.join("file"), b.join("file"));
        fs::write(&here, [0; 8192])?;
        let files =
            [&here, &there].map(|path| OpenOptions::new().read(true).write(true).open(path));
        let [first, second] = files;
        let files = [first?, second?];
        for round in 0..100_u64 {
            let (writer, reader) = match round % 2 {
                0 => (&files[0], &files[1]),
                _ => (&files[1], &files[0]),
            };
            let mut found = [0; 8];
            writer.read_exact_at(&mut found, 4090)?;
            expect("before", &u64::from_le_bytes(found), &round)?;
            writer.write_all_at(&(round + 1).to_le_bytes(), 4090)?;
            reader.read_exact_at(&mut found, 4090)?;
            expect("after", &u64::from_le_bytes(found), &(round + 1))?;
        }
        Ok(())
    });
}

#[test]
fn attributes_are_seen_by_a_node_that_has_them_cached() {
    both_ways("coherence-attributes", 2, |a, b| {
        let (here, there) = (a.join("file"), b.join("file"));
        fs::write(&here, b"x")?;
        for round in 0..50_u32 {
            fs::metadata(&there)?;
            let mode = 0o600 | (round % 0o100);
            fs::set_permissions(&here, Permissions::from_mode(mode))?;
            expect("mode", &(fs::metadata(&there)?.mode() & 0o777), &mode)?;
            std::os::unix::fs::chown(&here, Some(1000 + round), Some(2000 + round))?;
            let found = fs::metadata(&there)?;
            expect("owner", &(found.uid(), found.gid()), &(1000 + round, 2000 + round))?;
            let at = std::time::UNIX_EPOCH
                + Duration::new(1_000_000_000 + u64::from(round), 123_456_789);
            File::open(&here)?.set_modified(at)?;
            expect("mtime", &fs::metadata(&there)?.modified()?, &at)?;
            fs::hard_link(&here, a.join(format!("link{round}")))?;
            expect("links", &fs::metadata(&there)?.nlink(), &(u64::from(round) + 2))?;
            expect("all", &facts(&here)?, &facts(&there)?)?;
        }
        Ok(())
    });
}

/// What both nodes must say alike.
fn facts(path: &Path) -> io::Result<[i64; 10]> {
    let found = fs::symlink_metadata(path)?;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok([
        whole(found.ino()),
        found.mode().into(),
        whole(found.nlink()),
        found.uid().into(),
        found.gid().into(),
        whole(found.size()),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}

#[test]
fn entries_come_and_go_on_a_node_that_has_them_and_their_absence_cached() {
    both_ways("coherence-entries", 2, |a, b| {
        for round in 0..50 {
            let name = format!("name{round}");
            let (here, there) = (a.join(&name), b.join(&name));
            // Twice: the second answer comes from the kernel's negative entry.
            for _ in 0..2 {
                expect("absent", &there.exists(), &false)?;
            }
            fs::write(&here, &name)?;
            for _ in 0..2 {
                expect("present", &fs::read_to_string(&there)?, &name)?;
            }
            let other = format!("other{round}");
            expect("absent", &b.join(&other).exists(), &false)?;
            fs::rename(&here, a.join(&other))?;
            expect("renamed away", &there.exists(), &false)?;
            expect("renamed to", &fs::read_to_string(b.join(&other))?, &name)?;
            fs::write(a.join("replacement"), b"new")?;
            expect("replacement", &b.join("replacement").exists(), &true)?;
            fs::rename(a.join("replacement"), a.join(&other))?;
            expect("replaced", &fs::read_to_string(b.join(&other))?, &"new".to_owned())?;
            fs::remove_file(a.join(&other))?;
            expect("gone", &b.join(&other).exists(), &false)?;
            expect("listed", &listed(b)?, &Vec::new())?;
        }
        Ok(())
    });
}

fn listed(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().into());
    }
    names.sort();
    Ok(names)
}

#[test]
fn directories_are_listed_alike_and_an_unlinked_file_stays_for_whoever_has_it_open() {
    both_ways("coherence-directories", 3, |a, b| {
        let mut expected = Vec::new();
        for round in 0..200 {
            let name = PathBuf::from(format!("{round:04}"));
            let dir = if round % 2 == 0 { a } else { b };
            fs::write(dir.join(&name), b"open")?;
            expected.push(name);
            if round % 20 == 0 {
                expect("here", &listed(a)?, &expected)?;
                expect("there", &listed(b)?, &expected)?;
            }
        }
        let mut open = File::open(b.join("0000"))?;
        fs::remove_file(a.join("0000"))?;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        expect("unlinked", &text, &"open".to_owned())?;
        expect("links", &open.metadata()?.nlink(), &0)?;
        fs::create_dir(a.join("dir"))?;
        fs::write(b.join("dir/inside"), b"")?;
        expect("not empty", &fs::remove_dir(a.join("dir")).is_err(), &true)?;
        fs::remove_file(a.join("dir/inside"))?;
        fs::remove_dir(b.join("dir"))?;
        expect("gone", &a.join("dir").exists(), &false)
    });
}

#[test]
fn change_times_never_go_back_whoever_changes() {
    let cluster = Fixture::of("coherence-times", 3);
    let paths: Vec<PathBuf> =
        cluster.nodes().into_iter().map(|node| cluster.mount(node).join("file")).collect();
    let done = wait::within("changing in turn", PATIENCE, move || {
        fs::write(&paths[0], b"")?;
        let parent = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        let times = |path: &Path| -> io::Result<[(i64, i64); 4]> {
            let (file, dir) = (fs::metadata(path)?, fs::metadata(parent(path))?);
            Ok([
                (file.mtime(), file.mtime_nsec()),
                (file.ctime(), file.ctime_nsec()),
                (dir.mtime(), dir.mtime_nsec()),
                (dir.ctime(), dir.ctime_nsec()),
            ])
        };
        let mut last = times(&paths[0])?;
        for round in 0..300 {
            let (writer, reader) = (&paths[round % 3], &paths[(round + 1) % 3]);
            let mut file = OpenOptions::new().append(true).open(writer)?;
            file.write_all(b"x")?;
            fs::write(writer.with_extension("new"), b"")?;
            fs::remove_file(writer.with_extension("new"))?;
            let now = times(reader)?;
            for (now, last) in now.iter().zip(last) {
                anyhow::ensure!(*now > last, "round {round}: {now:?} after {last:?}");
            }
            last = now;
        }
        Ok(())
    });
    done.expect("later and later");
    cluster.finish();
}
