//! Names, and streams that read back as what they were made of.

use super::*;

fn name(name: &[u8]) -> Name {
    Name::parse(name).expect("a name")
}

#[test]
fn a_name_is_taken_apart_and_put_together() {
    for whole in [
        &b"user.a"[..],
        b"trusted.overlay.opaque",
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ] {
        assert_eq!(name(whole).whole(), whole);
    }
    assert!(matches!(Name::parse(b"system.nfs4_acl"), Err(FsError::Unsupported)));
    assert!(matches!(Name::parse(b"system.posix_acl_accessx"), Err(FsError::Unsupported)));
    assert!(matches!(Name::parse(b"os2.x"), Err(FsError::Unsupported)));
    assert!(matches!(Name::parse(b"user."), Err(FsError::Invalid(_))));
    assert!(matches!(Name::parse(b"user.a\0b"), Err(FsError::Invalid(_))));
    assert!(matches!(Name::parse(b""), Err(FsError::OutOfRange(_))));
    let longest = [&b"user."[..], &[b'x'; 250]].concat();
    assert_eq!(name(&longest).whole(), longest);
    assert!(matches!(Name::parse(&[&longest[..], b"x"].concat()), Err(FsError::OutOfRange(_))));
}

#[test]
fn a_stream_has_these_bytes() {
    let mut xattrs = Xattrs::default();
    xattrs.set(&name(b"user.b"), b"xyz".to_vec()).expect("small");
    xattrs.set(&name(b"security.capability"), Vec::new()).expect("small");
    xattrs.set(&name(b"user.a"), b"\0".to_vec()).expect("small");
    let expected: &[u8] =
        b"\x01\x01\0\0\x01\0\0\0a\0\x01\x01\0\0\x03\0\0\0bxyz\x03\x0a\0\0\0\0\0\0capability";
    assert_eq!(xattrs.encode(), expected);
    assert_eq!(xattrs.list(), b"user.a\0user.b\0security.capability\0");
    assert_eq!(xattrs.kinds(), InodeCore::HAS_CAPABILITY);
    let padded = [expected, &[0; 5]].concat();
    assert_eq!(Xattrs::parse(&padded), Ok(xattrs));
}

#[test]
fn what_is_too_much_changes_nothing() {
    let mut xattrs = Xattrs::default();
    let (one, two) = (name(b"user.1"), name(b"user.2"));
    assert!(matches!(xattrs.set(&one, vec![1; VALUE_MAX + 1]), Err(FsError::XattrTooLarge)));
    xattrs.set(&one, vec![1; VALUE_MAX]).expect("the largest value");
    let before = xattrs.clone();
    assert!(matches!(xattrs.set(&two, vec![2; VALUE_MAX]), Err(FsError::NoSpace)));
    assert_eq!(xattrs, before);
    xattrs.set(&two, vec![2; STREAM_MAX - VALUE_MAX - 18]).expect("all of it");
    assert_eq!(xattrs.len(), STREAM_MAX);
    assert!(matches!(
        xattrs.set(&two, vec![2; STREAM_MAX - VALUE_MAX - 17]),
        Err(FsError::NoSpace)
    ));
    assert_eq!(xattrs.get(&two).map(<[u8]>::len), Some(STREAM_MAX - VALUE_MAX - 18));
}

#[test]
fn there_are_no_more_names_than_can_be_listed() {
    let mut xattrs = Xattrs::default();
    let all = (0..1000).map(|i| format!("user.{i:0>250}"));
    let set = all.take_while(|n| xattrs.set(&name(n.as_bytes()), Vec::new()).is_ok()).count();
    assert_eq!(set, LIST_MAX / 256);
    assert_eq!(Xattrs::parse(&xattrs.encode()), Ok(xattrs));
}

#[test]
fn nonsense_is_refused() {
    let mut xattrs = Xattrs::default();
    xattrs.set(&name(b"user.a"), b"1".to_vec()).expect("small");
    xattrs.set(&name(b"user.b"), b"2".to_vec()).expect("small");
    let whole = xattrs.encode();
    for cut in 1..whole.len() {
        assert!(Xattrs::parse(&whole[..cut]).is_err() == (cut != 10), "{cut}");
    }
    let changed = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        Xattrs::parse(&bytes)
    };
    assert!(changed(0, 6).is_err(), "an unknown namespace");
    assert!(changed(0, 0).is_err(), "bytes behind the end");
    assert!(changed(8, b'b').is_err(), "one name twice");
    assert!(changed(8, b'c').is_err(), "out of order");
    assert!(changed(8, 0).is_err(), "a zero byte in a name");
    assert!(changed(7, 1).is_err(), "a value longer than there are bytes");
    assert!(changed(0, 4).is_err(), "an ACL with a name");
    assert!(Xattrs::parse(b"\x04\0\0\0\x01\0\0\0a").is_err(), "an ACL that is none");
    assert_eq!(Xattrs::parse(&[]), Ok(Xattrs::default()));
}

/// Any change of a few values, against a map.
#[test]
fn a_stream_holds_what_a_map_holds() {
    let mut word = 1_u64;
    let mut draw = |bound: u64| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((word >> 33) % bound).expect("small")
    };
    let names: [&[u8]; 6] = [
        b"user.a",
        b"user.ab",
        b"user.b",
        b"trusted.a",
        b"security.capability",
        b"security.selinux",
    ];
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut xattrs = Xattrs::default();
    for step in 0..2_000 {
        let whole = names[draw(6)].to_vec();
        if draw(3) == 0 {
            assert_eq!(xattrs.remove(&name(&whole)), model.remove(&whole).is_some());
        } else {
            let value = vec![u8::try_from(step % 251).expect("small"); draw(300)];
            xattrs.set(&name(&whole), value.clone()).expect("small");
            model.insert(whole, value);
        }
        let bytes = xattrs.encode();
        assert_eq!(bytes.len(), xattrs.len());
        xattrs = Xattrs::parse(&bytes).expect("as it was written");
        for whole in names {
            assert_eq!(xattrs.get(&name(whole)), model.get(whole).map(Vec::as_slice));
        }
        assert_eq!(xattrs.list().split(|b| *b == 0).count() - 1, model.len());
    }
}
