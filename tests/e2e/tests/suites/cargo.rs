//! cargo: a program is built with its target folder on the mounts, and built on by another node.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Cluster, Fixture};

use crate::program::run;
use crate::rounds::rounds;

/// Without a registry.
fn cargo(cluster: &Cluster, dir: &Path, args: &[&str]) -> String {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).arg("--offline").current_dir(dir);
    cargo.env("CARGO_INCREMENTAL", "1").env("CARGO_TARGET_DIR", dir.join("target"));
    // Settings of whoever runs this test are not for that program.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    run(cluster, &mut cargo)
}

/// A library with a few modules, a build script that writes one of them, and a program.
fn sources(dir: &Path, modules: u16) {
    for folder in ["counting/src", "program/src"] {
        fs::create_dir_all(dir.join(folder)).expect("made");
    }
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
    write("Cargo.toml", "[workspace]\nmembers = [\"counting\", \"program\"]\nresolver = \"2\"\n");
    let package = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
    };
    write("counting/Cargo.toml", &package("counting"));
    let needs = "[dependencies]\ncounting = { path = \"../counting\" }\n";
    write("program/Cargo.toml", &(package("program") + needs));
    let script = "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
                  std::fs::write(out + \"/made.rs\", \"pub const MADE: u32 = 1000;\").unwrap();\n}\n";
    write("counting/build.rs", script);
    let mut library = "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n".to_owned();
    for module in 0..modules {
        library.push_str(&format!("pub mod m{module};\n"));
        let text = format!(
            "pub fn number(n: u32) -> u32 {{ (0..n).map(|i| i % {}).sum() }}\n\
             #[test]\nfn counts() {{ assert!(number(10) < 1000); }}\n",
            module + 2
        );
        write(&format!("counting/src/m{module}.rs"), &text);
    }
    write("counting/src/lib.rs", &library);
    print_of(dir, "one");
}

fn print_of(dir: &Path, word: &str) {
    let text = format!("fn main() {{ println!(\"{word} {{}}\", counting::MADE); }}\n");
    fs::write(dir.join("program/src/main.rs"), text).expect("written");
}

#[test]
fn one_node_builds_on_what_another_one_built() {
    let cluster = Fixture::of("suite-cargo", 2);
    let [here, there] = [1, 2].map(|node| cluster.mount(node).join("crate"));
    sources(&here, rounds(3, 100));
    cargo(&cluster, &here, &["build"]);
    for round in 0..rounds(1, 10) {
        let (builder, other) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        // Nothing is built anew: times and contents are those that the other one left.
        let said = cargo(&cluster, other, &["build"]);
        assert!(!said.contains("Compiling"), "{said}");
        let word = format!("round{round}");
        print_of(other, &word);
        // By the clock of file times, after what was built.
        let said = cargo(&cluster, other, &["build"]);
        assert!(said.contains("Compiling program"), "{said}");
        assert!(!said.contains("Compiling counting"), "{said}");
        let said = run(&cluster, &mut Command::new(builder.join("target/debug/program")));
        assert_eq!(said, format!("{word} 1000\n"));
        cargo(&cluster, builder, &["test", "--quiet"]);
        cargo(&cluster, builder, &["build"]);
    }
    cluster.finish();
}
