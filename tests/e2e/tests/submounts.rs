//! A file system mounted on a directory of ours, on one node, while another changes names.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Fixture, mounts};

/// Detached when dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn tmpfs(dir: &Path) -> Mounted<'_> {
        let status = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(dir).status();
        assert!(status.expect("mount").success());
        Mounted(dir)
    }

    fn is_there(&self) -> bool {
        self.0.join("inner").exists() && mounts::is_mounted(self.0).expect("readable")
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = mounts::detach(self.0);
    }
}

#[test]
fn what_is_mounted_on_our_directories_stays_while_other_nodes_change_names_beside_it() {
    let cluster = Fixture::of("submounts", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node));
    cluster.admin(1).unmount(&here).expect("unmounted");
    cluster.admin(1).mount_for_submounts(&here).expect("mounted");
    let dir = here.join("a/b");
    fs::create_dir_all(&dir).expect("made");
    {
        let mounted = Mounted::tmpfs(&dir);
        fs::write(dir.join("inner"), "of tmpfs").expect("written");
        for round in 0..20 {
            // In every directory on the way, after this node has looked at all of them.
            assert!(mounted.is_there());
            for place in ["", "a", "a/b"] {
                fs::write(there.join(place).join(format!("new-{round}")), "").expect("made");
            }
            assert!(here.join(format!("a/new-{round}")).exists());
            assert!(mounted.is_there(), "round {round}");
        }
    }
    assert!(dir.join("new-0").exists(), "what is below is seen again");
    cluster.finish();
}
