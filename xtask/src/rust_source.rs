//! Rust source as checks need it: which bytes are code, and which words the code is made of.

/// The source with every comment and every string and character literal turned to spaces; lines
/// and columns stay.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        match end {
            Some(end) => {
                let end = end.min(bytes.len());
                blank(&mut code[at..end]);
                at = end;
            }
            // A whole word, so that the `r` in `for"` opens no raw string.
            None if is_word(bytes[at]) => {
                at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
            }
            None => at += 1,
        }
    }
    String::from_utf8(code).expect("whole characters became spaces")
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

/// The end of the comment or literal that begins at `at`, if one does.
fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    let prefix = [&b"br"[..], b"cr", b"r", b"b", b"c", b""].into_iter().find(|prefix| {
        let after = &rest[prefix.len().min(rest.len())..];
        let hashes = after.iter().take_while(|b| **b == b'#').count();
        let raw = prefix.ends_with(b"r");
        rest.starts_with(prefix) && after.get(hashes) == Some(&b'"') && (raw || hashes == 0)
    });
    if let Some(prefix) = prefix {
        let after = &rest[prefix.len()..];
        return Some(
            at + prefix.len() + if prefix.ends_with(b"r") { raw(after) } else { plain(after) },
        );
    }
    let quote = usize::from(rest[0] == b'b');
    if rest.get(quote) == Some(&b'\'') {
        return character(&rest[quote..]).map(|len| at + quote + len);
    }
    None
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn raw(rest: &[u8]) -> usize {
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    let end = [b"\"", vec![b'#'; hashes].as_slice()].concat();
    let from = hashes + 1;
    let found = rest[from..].windows(end.len()).position(|window| window == end);
    found.map_or(rest.len(), |at| from + at + end.len())
}

fn plain(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|b| *b == b'\'')?;
        return Some(3 + end + 1);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let text = text.or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()])).ok()?;
    let len = text.chars().next()?.len_utf8();
    (rest.get(1 + len) == Some(&b'\'')).then_some(len + 2)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Every identifier and keyword of `code`, with the number of its line, from 1.
pub(crate) fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(index, line)| {
        let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let starts = |word: &&str| word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        words.filter(starts).map(move |word| (index + 1, word))
    })
}

/// The words that an identifier is made of, in small letters: `LockTableId` gives lock, table, id.
pub(crate) fn words(identifier: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in identifier.split('_') {
        let chars: Vec<char> = part.chars().collect();
        let mut word = String::new();
        for (i, c) in chars.iter().enumerate() {
            let after_small = i > 0 && !chars[i - 1].is_uppercase();
            let before_small = chars.get(i + 1).is_some_and(|next| next.is_lowercase());
            if c.is_uppercase() && !word.is_empty() && (after_small || before_small) {
                words.push(std::mem::take(&mut word));
            }
            word.extend(c.to_lowercase());
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

/// Names of the functions with an attribute that makes them tests.
pub(crate) fn tests(code: &str) -> Vec<&str> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in code.lines() {
        let line = line.trim();
        is_test |= ["#[test]", "#[tokio::test", "#[rstest"].iter().any(|a| line.contains(a));
        let Some((before, after)) = line.split_once("fn ") else { continue };
        if before.is_empty() || before.ends_with(' ') {
            let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            if is_test {
                tests.push(&after[..end.unwrap_or(after.len())]);
            }
            is_test = false;
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::{code, identifiers, tests as tests_of, words};

    #[test]
    fn comments_and_literals_become_spaces_and_code_stays() {
        let source =
            "let a = \"x // \\\" y\"; // z\n/* a /* b */ c */ let b = 'q'; fn f<'a>(_: &'a str) {}";
        let expected =
            "let a =            ;     \n                  let b =    ; fn f<'a>(_: &'a str) {}";
        assert_eq!(code(source), expected);
    }

    #[test]
    fn raw_strings_bytes_and_escaped_characters_are_literals() {
        let cases =
            ["r#\"a \" b\"#", "br\"x\\\"", "b'\\n'", "'\\u{1F600}'", "'é'", "b\"y\"", "c\"z\""];
        for case in cases {
            let source = format!("f({case}, g)");
            let expected = format!("f({}, g)", " ".repeat(case.len()));
            assert_eq!(code(&source), expected, "{case}");
        }
        assert_eq!(code("for x in r {}"), "for x in r {}");
        assert_eq!(code("never closed \"abc"), "never closed     ");
    }

    #[test]
    fn identifiers_come_with_their_lines() {
        let found: Vec<_> = identifiers("let x1 = 5u8;\nfoo::Bar").collect();
        assert_eq!(found, [(1, "let"), (1, "x1"), (2, "foo"), (2, "Bar")]);
    }

    #[test]
    fn identifiers_fall_into_words() {
        assert_eq!(words("LockTableId"), ["lock", "table", "id"]);
        assert_eq!(words("max_LVBSize"), ["max", "lvb", "size"]);
        assert_eq!(words("EX_HELD"), ["ex", "held"]);
        assert_eq!(words("crc32c"), ["crc32c"]);
    }

    #[test]
    fn functions_marked_as_tests_are_found() {
        let source = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test(flavor = x)]\nasync fn two() {}\n    #[test]\n    #[cfg(unix)]\n    fn three() {}";
        assert_eq!(tests_of(source), ["one", "two", "three"]);
    }
}
