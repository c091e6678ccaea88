//! What is wrong is refused in words, and harms nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::load::{Mix, Team};
use e2e::{Cluster, Fixture, wait};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a program says that is expected to fail.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it should be refused: {command:?} said {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn local(cluster: &Cluster, device: &Path, dir: &Path) -> Command {
    let mut command = cluster.programs().command("mxd");
    command.arg("--local").arg(device).arg("--dir").arg(dir);
    command
}

#[test]
fn a_device_that_is_not_matrixfs_is_refused_by_all_programs() {
    let cluster = Fixture::prepared("bad-device", 1, 64 << 20);
    let device = cluster.folder().join("device-of-zeros");
    File::create(&device).expect("created").set_len(64 << 20).expect("sparse");
    let dir = cluster.mount(1);
    let said = refused(local(&cluster, &device, &dir));
    assert!(said.to_lowercase().contains("matrixfs") || said.contains("superblock"), "{said}");
    let mut fsck = cluster.programs().command("fsck-matrixfs");
    fsck.arg("-n").arg(&device);
    refused(fsck);
    let mut arbiter = cluster.programs().command("mxarbiter");
    arbiter.arg("--socket").arg(cluster.folder().join("node9.admin")).arg(&device);
    arbiter.arg("--state").arg(cluster.folder().join("fenced9"));
    refused(arbiter);
    let missing = cluster.folder().join("no-such-device");
    let said = refused(local(&cluster, &missing, &dir));
    assert!(said.contains("no-such-device"), "{said}");
}

#[test]
fn a_device_in_use_is_refused_to_a_second_cluster_a_local_mount_and_mkfs() {
    let cluster = Fixture::of("bad-second", 2);
    let device = cluster.device();
    let dir = cluster.folder().join("mnt9");
    fs::create_dir(&dir).expect("created");
    let said = refused(local(&cluster, &device, &dir));
    assert!(said.contains("use"), "{said}");
    let mut arbiter = cluster.programs().command("mxarbiter");
    arbiter.args(["--patience", "1", "--socket"]).arg(cluster.folder().join("node9.admin"));
    arbiter.arg("--state").arg(cluster.folder().join("fenced9")).arg(&device);
    let said = refused(arbiter);
    assert!(said.contains("use"), "{said}");
    for force in [false, true] {
        let mut mkfs = cluster.programs().command("mkfs-matrixfs");
        mkfs.arg(&device);
        if force {
            mkfs.arg("--force");
        }
        refused(mkfs);
    }
    fs::write(cluster.mount(1).join("file"), b"as before").expect("written");
    assert_eq!(fs::read(cluster.mount(2).join("file")).expect("read"), b"as before");
    cluster.finish();
}

#[test]
fn a_node_id_that_runs_already_is_not_let_in_twice() {
    let cluster = Fixture::of("bad-twice", 2);
    let text = fs::read_to_string(cluster.config(2)).expect("readable");
    let other = cluster.folder().join("node9.toml");
    let text = text.replace("node2.admin", "node9.admin").replace("listen", "# was listen");
    let listen = format!("listen = \"unix:{}\"\n", cluster.folder().join("node9.peer").display());
    fs::write(&other, listen + &text.replace("# was listen = ", "# ")).expect("written");
    let mut second = cluster.programs().command("mxd");
    second.arg("--config").arg(&other);
    let mut child = second.stderr(std::process::Stdio::null()).spawn().expect("it starts");
    // It takes the place of the first, which is fenced, or is refused: never do both write.
    fs::write(cluster.mount(1).join("file"), b"1").expect("written");
    let one_has_ended = wait::until("one of them to end", PATIENCE, || {
        let second_ended = child.try_wait()?.is_some();
        let status = cluster.admin(2).status();
        let first_ended = status.is_err();
        Ok((second_ended || first_ended).then_some((first_ended, second_ended)))
    });
    let _ = child.kill();
    let _ = child.wait();
    one_has_ended.expect("both go on");
    fs::write(cluster.mount(1).join("file"), b"2").expect("written");
}

#[test]
fn garbage_on_the_sockets_harms_nobody() {
    let cluster = Fixture::of("bad-garbage", 2);
    let mut noise = vec![0_u8; 100_000];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut noise)).expect("random");
    let admin = cluster.config(1).with_extension("admin");
    for socket in [cluster.peer_socket(1), cluster.peer_socket(2), admin] {
        for length in [0, 1, 31, 32, 33, 100, 4096, noise.len()] {
            let mut stream = UnixStream::connect(&socket).expect("it listens");
            stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a time-out");
            // It may be closed as soon as it makes no sense.
            let _ = stream.write_all(&noise[..length]);
        }
    }
    for node in cluster.nodes() {
        assert_eq!(
            cluster.admin(node).status().expect("it answers").view.expect("a view").members.len(),
            2
        );
    }
    fs::write(cluster.mount(1).join("file"), b"as before").expect("written");
    assert_eq!(fs::read(cluster.mount(2).join("file")).expect("read"), b"as before");
    cluster.finish();
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    let cluster = Fixture::prepared("bad-config", 2, 64 << 20);
    let good = fs::read_to_string(cluster.config(1)).expect("readable");
    let bad = cluster.folder().join("node9.toml");
    let check = |text: &str| {
        fs::write(&bad, text).expect("written");
        let mut mxd = cluster.programs().command("mxd");
        mxd.arg("--check-config").arg(&bad);
        refused(mxd)
    };
    let said = check(&format!("colour = \"blue\"\n{good}"));
    assert!(said.contains("node9.toml:1:") && said.contains("colour"), "{said}");
    let said = check(&good.replace("node = 1", "\nnode = 65"));
    assert!(said.contains("node9.toml:2:"), "{said}");
    assert!(check("node = 1\n").contains("listen"));
    assert!(check("node = \n").contains("node9.toml:1:"));
}

#[test]
fn who_may_not_is_told_so() {
    let cluster = Fixture::of("bad-permissions", 1);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    for socket in [cluster.arbiter_socket(), cluster.config(1).with_extension("admin")] {
        assert_eq!(mode(&socket) & 0o077, 0, "{}", socket.display());
    }
    // The folder of the fixture is for root alone, so the program is asked where others may look.
    let open = std::env::temp_dir().join("matrixfs-e2e-open");
    let _ = fs::remove_dir_all(&open);
    fs::create_dir(&open).expect("created");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("set");
    let device = open.join("device");
    fs::write(&device, vec![0; 64 << 20]).expect("written");
    fs::set_permissions(&device, fs::Permissions::from_mode(0o600)).expect("set");
    let program = open.join("mkfs-matrixfs");
    fs::copy(cluster.programs().path("mkfs-matrixfs"), &program).expect("copied");
    let mut mkfs = Command::new("setpriv");
    mkfs.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let said = refused({
        mkfs.arg(&program).arg(&device);
        mkfs
    });
    fs::remove_dir_all(&open).expect("removed");
    assert!(said.contains("device") && said.to_lowercase().contains("permission"), "{said}");
    cluster.finish();
}

#[test]
fn the_arbiter_may_be_killed_and_started_again_under_load() {
    let mut cluster = Fixture::of("bad-arbiter", 2);
    let mut team = Team::new(Mix::Mixed, Duration::ZERO);
    for node in cluster.nodes() {
        team.start(&cluster, node).expect("a writer starts");
    }
    for _ in 0..3 {
        team.until_all_go_on(20).expect("all work");
        cluster.kill_arbiter().expect("it is killed");
        cluster.start_arbiter().expect("it starts again");
    }
    team.until_all_go_on(20).expect("all work again");
    team.stop_all().expect("nobody failed");
    for node in cluster.nodes() {
        team.judge(&cluster, node).expect("readable").expect_all().expect("all is there");
    }
    cluster.finish();
}

#[test]
fn every_process_may_be_killed_at_once() {
    let mut cluster = Fixture::of("bad-all", 2);
    let mut team = Team::new(Mix::Mixed, Duration::ZERO);
    for node in cluster.nodes() {
        team.start(&cluster, node).expect("a writer starts");
    }
    team.until_all_go_on(30).expect("all work");
    cluster.kill_arbiter().expect("it is killed");
    for node in cluster.nodes() {
        cluster.kill(node).expect("it is killed");
        team.stop(node).expect("its writer ends");
    }
    cluster.fsck().expect("checked").expect_clean().expect("clean, with the journals replayed");
    cluster.start_arbiter().expect("it starts");
    for node in cluster.nodes() {
        cluster.start(node).expect("it starts");
        team.judge(&cluster, node).expect("readable").expect_all().expect("all is there");
    }
    cluster.finish();
}

#[test]
fn mkfs_may_be_killed_and_run_again() {
    let mut cluster = Fixture::prepared("bad-mkfs", 1, 1 << 30);
    cluster.stop_arbiter().expect("it stops");
    for pause in [0, 1, 2, 4, 8, 16, 32] {
        let mut mkfs = cluster.programs().command("mkfs-matrixfs");
        let mut child =
            mkfs.args(["--quiet", "--force"]).arg(cluster.device()).spawn().expect("it starts");
        // Any moment will do.
        std::thread::sleep(Duration::from_millis(pause));
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut mkfs = cluster.programs().command("mkfs-matrixfs");
    let status = mkfs.args(["--quiet", "--force"]).arg(cluster.device()).status();
    assert!(status.expect("it starts").success());
    cluster.fsck().expect("checked").expect_clean().expect("clean");
}

#[test]
fn a_full_device_says_so_and_goes_on_when_something_is_deleted() {
    let cluster = Fixture::sized("bad-full", 2, 128 << 20);
    let (first, second) = (cluster.mount(1), cluster.mount(2));
    let filled = wait::within("filling", PATIENCE, move || {
        let mut number = 0;
        let file = File::create(first.join("big"))?;
        let full = loop {
            match file.write_all_at(&[1; 1 << 20], number << 20) {
                Ok(()) => number += 1,
                Err(error) => break error,
            }
        };
        anyhow::ensure!(full.kind() == ErrorKind::StorageFull, "{full}");
        file.sync_all()?;
        drop(file);
        // The other node finds it full as well.
        let other =
            OpenOptions::new().create(true).truncate(true).write(true).open(second.join("other"));
        let refused = other.and_then(|other| other.write_all_at(&[2; 1 << 20], 0));
        let refused = refused.map_err(|error| error.kind());
        anyhow::ensure!(refused == Err(ErrorKind::StorageFull), "{refused:?}");
        fs::remove_file(second.join("big"))?;
        // What was freed may be used once the journal has let go of it.
        wait::until("room", PATIENCE / 2, || {
            fs::write(first.join("small"), vec![3; 4 << 20])?;
            File::open(first.join("small"))?.sync_all()?;
            Ok(Some(()))
        })?;
        anyhow::ensure!(fs::read(second.join("small"))? == vec![3; 4 << 20], "other contents");
        Ok(())
    });
    filled.expect("full, and then not");
    cluster.finish();
}

#[test]
fn a_daemon_told_to_end_by_systemd_leaves_in_order() {
    let mut cluster = Fixture::of("bad-term", 2);
    fs::write(cluster.mount(2).join("file"), b"kept").expect("written");
    cluster.process(2).expect("it runs").signal(Signal::TERM).expect("sent");
    let status = cluster.until_ended(2, PATIENCE).expect("it ends");
    assert!(status.expect("a child").success());
    assert_eq!(fs::read(cluster.mount(1).join("file")).expect("read"), b"kept");
    let findings = cluster.admin(1).recoveries().expect("an answer").recoveries;
    assert!(findings.is_empty(), "nobody died: {findings:?}");
    cluster.finish();
}
