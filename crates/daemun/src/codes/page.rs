//! The codes as text: one of them for a terminal, all of them for the manual.

use std::fmt::Write;

use super::{Code, all};

/// One code, as `daemun help CODE` tells it.
pub fn explain(code: &Code) -> String {
    let Code { id, severity, title, cause, example, mend } = code;
    let example = example.replace('\n', "\n    ");
    format!("{id} ({severity}): {title}\n\nCause: {cause}\n\nExample:\n\n    {example}\n\nMend: {mend}\n")
}

/// All codes, as `docs/manual/codes.md` holds them.
pub fn page() -> String {
    let mut page = String::from(
        "# Codes\n\nWhat [daemun check](check.md) finds, and what the warnings at start mean; `daemun help CODE` tells the \
         same. An *error*\nwould break the site, a *warning* is a mistake that it lives with, a *note* is good to know.\n",
    );
    for Code { id, severity, title, cause, example, mend } in all() {
        // Writing into a string cannot fail.
        let _ =
            write!(page, "\n## {id}\n\n**{title}** ({severity})\n\n{cause}\n\n```\n{example}\n```\n\nMend: {mend}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_tells_what_help_tells() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/manual/codes.md");
        if std::env::var_os("WRITE_CODES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let manual = std::fs::read_to_string(path).unwrap();
        assert!(manual == page(), "docs/manual/codes.md is old; write it with WRITE_CODES=1 cargo test codes::page");
    }

    #[test]
    fn every_code_says_everything_and_stands_once_in_order() {
        let codes: Vec<&Code> = all().collect();
        assert!(codes.is_sorted_by(|one, other| one.id < other.id));
        for code in codes {
            let told = explain(code);
            assert!(code.id.len() == 4 && code.id.starts_with('D'), "{told}");
            for part in [code.title, code.cause, code.example, code.mend] {
                assert!(!part.is_empty() && !part.contains("  \n"), "{told}");
            }
        }
    }
}
