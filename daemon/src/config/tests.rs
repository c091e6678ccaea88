//! What is accepted, and in what words the rest is refused.

use std::path::Path;

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/mxd.toml.example");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("mxd.toml"), text).map_err(|error| error.to_string())
}

/// The least file, with one line of it replaced or one added.
fn with(key: &str, line: &str) -> String {
    let least = [
        ("node", "node = 1"),
        ("listen", "listen = \"unix:/run/a\""),
        ("arbiter", "arbiter = \"/run/arbiter\""),
    ];
    let mut lines: Vec<&str> =
        least.iter().map(|(name, own)| if *name == key { line } else { own }).collect();
    if !least.iter().any(|(name, _)| *name == key) {
        lines.push(line);
    }
    lines.join("\n")
}

fn refused(key: &str, line: &str) -> String {
    parse(&with(key, line)).expect_err("it should be refused")
}

#[test]
fn the_example_is_a_configuration() {
    let config = parse(EXAMPLE).expect("the example is for use");
    assert_eq!(config.node.get(), 1);
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.name("label"), Ok("shared"));
    assert_eq!(config.admin_socket("label"), Ok("/run/matrixfs/shared/mxd.sock".into()));
    assert!(config.to_string().contains("node     1 of 3"), "{config}");
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse(&with("", "")).expect("everything needed is there");
    assert_eq!(config.log, LogLevel::Info);
    assert_eq!(config.admin_socket("vol"), Ok("/run/matrixfs/vol/mxd.sock".into()));
    assert_eq!(config.admin_socket("../x"), Err(LabelNoName("../x".to_owned())));
    assert_eq!(config.name(""), Err(LabelNoName(String::new())));
    assert!(config.peers.is_empty());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_is_allowed() {
    assert_eq!(
        refused("lissen", "lissen = 1"),
        "mxd.toml:4: unknown field `lissen`, expected one of `node`, `listen`, `peers`, \
         `arbiter`, `name`, `admin`, `log`"
    );
}

#[test]
fn a_value_of_the_wrong_type_or_range_is_named_with_its_line() {
    for (key, line, expected) in [
        ("node", "node = 0", "1: invalid value: integer `0`, expected a node id from 1 to 64"),
        ("node", "node = 65", "1: invalid value: integer `65`, expected a node id from 1 to 64"),
        (
            "node",
            "node = 1.5",
            "1: invalid type: floating point `1.5`, expected a node id from 1 to 64",
        ),
        ("listen", "listen = 7", "2: invalid type: integer `7`, expected a string"),
        (
            "listen",
            "listen = \"10.0.0.1:7000\"",
            "2: `10.0.0.1:7000` is not on the loopback interface: connections are not encrypted \
             yet, so only `unix:/path` and `127.0.0.1:port` are allowed",
        ),
        (
            "listen",
            "listen = \"somewhere\"",
            "2: `somewhere` is no address: expected `unix:/path` or `127.0.0.1:port`",
        ),
        ("listen", "listen = \"unix:a\"", "2: `a` is no absolute path"),
        (
            "listen",
            "listen = \"127.0.0.1:0\"",
            "2: `127.0.0.1:0` has no port to connect to: 1 to 65535 are allowed",
        ),
        (
            "log",
            "log = \"loud\"",
            "4: unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
        (
            "name",
            "name = \"a/b\"",
            "4: `a/b` is no name: 1 to 64 letters, digits, `.`, `_` and `-` are allowed, not \
             beginning with `.` or `-`",
        ),
        (
            "peers",
            "peers.65 = \"unix:/run/b\"",
            "4: invalid value: string \"65\", expected a node id from 1 to 64",
        ),
    ] {
        assert_eq!(refused(key, line), format!("mxd.toml:{expected}"));
    }
    let long = format!("admin = \"/{}\"", "x".repeat(107));
    assert!(
        refused("admin", &long).ends_with("has 108 bytes: the path of a socket has at most 107")
    );
}

#[test]
fn a_missing_key_is_named() {
    assert_eq!(refused("arbiter", ""), "mxd.toml: missing field `arbiter`");
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    assert!(refused("name", "name = ").starts_with("mxd.toml:4: "));
}

#[test]
fn a_node_is_not_its_own_peer_and_no_two_share_an_address() {
    assert_eq!(
        refused("peers", "[peers]\n2 = \"unix:/run/b\"\n1 = \"unix:/run/c\""),
        "mxd.toml:6: node 1 is this node itself: list the others in [peers]"
    );
    assert_eq!(
        refused("peers", "[peers]\n2 = \"unix:/run/b\"\n3 = \"unix:/run/b\""),
        "mxd.toml:6: nodes 2 and 3 have the same address unix:/run/b"
    );
    assert_eq!(
        refused("peers", "[peers]\n2 = \"unix:/run/a\""),
        "mxd.toml:5: nodes 1 and 2 have the same address unix:/run/a"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::read(Path::new("/nonexistent/mxd.toml")).expect_err("there is none");
    assert_eq!(error.to_string(), "/nonexistent/mxd.toml: No such file or directory (os error 2)");
}

#[test]
fn the_name_of_a_local_mount_is_a_file_name_and_its_own() {
    assert_eq!(name_of_local(Path::new("/mnt/a b/")), "local_mnt_a_b");
    let long = |end: &str| name_of_local(&Path::new("/").join("x".repeat(100)).join(end));
    assert_eq!(long("a").len(), 64);
    assert_ne!(long("a"), long("b"));
}
