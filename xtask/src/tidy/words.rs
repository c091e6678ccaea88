//! One word, one meaning: the words that lost, read from docs/glossary.md, are no identifiers.

use crate::rust_source;
use crate::workspace::File;

const GLOSSARY: &str = "docs/glossary.md";
const HEADING: &str = "## Words that lost";

#[derive(Debug)]
struct Banned {
    /// In small letters; several where the word is made of several.
    words: Vec<String>,
    winner: String,
}

pub(crate) fn check(files: &[File]) -> Vec<String> {
    let Some(glossary) = files.iter().find(|file| file.path == GLOSSARY) else {
        return vec![format!("{GLOSSARY}: missing")];
    };
    let banned = banned(&glossary.text);
    if banned.is_empty() {
        return vec![format!("{GLOSSARY}: no words under `{HEADING}`")];
    }
    let rust = files.iter().filter(|file| file.is_rust());
    rust.flat_map(|file| check_file(file, &banned)).collect()
}

/// Rows `| `word` | `winner` | .. |` of the section.
fn banned(glossary: &str) -> Vec<Banned> {
    let section = glossary.split(HEADING).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let row = |line: &str| {
        let mut cells = line.split('|').map(str::trim);
        let word = cells.nth(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some(Banned { words: rust_source::words(word), winner: cells.next()?.to_owned() })
    };
    section.lines().filter_map(row).collect()
}

fn check_file(file: &File, banned: &[Banned]) -> Vec<String> {
    let code = rust_source::code(&file.text);
    let lines: Vec<&str> = file.text.lines().collect();
    let mut findings = Vec::new();
    for (line, identifier) in rust_source::identifiers(&code) {
        let words = rust_source::words(identifier);
        let lost = banned
            .iter()
            .find(|banned| words.windows(banned.words.len()).any(|window| window == banned.words));
        // A name that others gave, of a system call or a foreign protocol, is theirs to choose.
        let is_foreign = lines.get(line - 1).is_some_and(|line| line.contains("// foreign word"));
        if let (Some(Banned { words, winner }), false) = (lost, is_foreign) {
            let word = words.join("_");
            let path = &file.path;
            findings.push(format!("{path}:{line}: `{identifier}`: for `{word}` say {winner}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Glossary\n\n## Words that lost\n\n| Word | Say | Why |\n|---|---|---|\n| `master` | `home` | x |\n| `resource_group` | `AllocationGroup` | y |\n\n## Next\n| `a` | `b` |\n";

    #[test]
    fn a_word_that_lost_is_found_inside_identifiers_with_the_winner() {
        let banned = banned(TEXT);
        assert_eq!(banned.len(), 2);
        let text = "//! A master of none.\nfn is_master() {}\nstruct ResourceGroupId;\nlet mastery = group;\nlet x = MASTER; // foreign word\n";
        let file = File { path: "a.rs".to_owned(), text: text.to_owned() };
        assert_eq!(
            check_file(&file, &banned),
            [
                "a.rs:2: `is_master`: for `master` say `home`",
                "a.rs:3: `ResourceGroupId`: for `resource_group` say `AllocationGroup`",
            ]
        );
    }
}
