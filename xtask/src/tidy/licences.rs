//! Licences of everything that is linked: only those that ask for no more than a notice.

use crate::workspace::Package;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(crate) fn check(packages: &[Package]) -> Vec<String> {
    let finding = |package: &Package| {
        let licence = package.licence.as_deref().unwrap_or("none");
        let name = format!("{} {}", package.name, package.version);
        (!is_allowed(licence)).then(|| {
            format!("Cargo.lock: licence of {name} is {licence} (xtask/src/tidy/licences.rs)")
        })
    };
    packages.iter().filter_map(finding).collect()
}

/// An SPDX expression is allowed when one side of every OR, and both of every AND, are.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.trim();
    if let Some(sides) = split(expression, &[" OR ", "/"]) {
        return sides.into_iter().any(is_allowed);
    }
    if let Some(sides) = split(expression, &[" AND "]) {
        return sides.into_iter().all(is_allowed);
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner),
        None => ALLOWED.contains(&expression),
    }
}

/// Parts between operators that are not in parentheses; `None` when there is no such operator.
fn split<'a>(expression: &'a str, operators: &[&str]) -> Option<Vec<&'a str>> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut at) = (0_u32, 0, 0);
    while let Some(c) = expression[at..].chars().next() {
        let operator = operators.iter().find(|operator| expression[at..].starts_with(**operator));
        match (c, operator) {
            (_, Some(operator)) if depth == 0 => {
                parts.push(&expression[start..at]);
                at += operator.len();
                start = at;
                continue;
            }
            ('(', _) => depth += 1,
            (')', _) => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += c.len_utf8();
    }
    parts.push(&expression[start..]);
    (parts.len() > 1).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_weighed() {
        assert!(is_allowed("MIT OR Apache-2.0"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0"));
        assert!(!is_allowed("MIT AND GPL-2.0-only"));
        assert!(!is_allowed("(MIT OR GPL-2.0) AND MPL-2.0"));
        assert!(!is_allowed("none"));
    }
}
