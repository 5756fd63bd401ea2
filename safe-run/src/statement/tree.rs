//! Reads a statement's parse tree: the tables it reaches, the functions it calls. The only file that names the parser.

use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode};

use super::{Class, head};

/// Classifies one statement.
pub(crate) fn classify(text: &str, words: &head::Words<'_>) -> Class {
    let mut class = Class::new(head::kind(words));
    class.transaction = head::transaction(words);
    class
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn dump() {
        for s in std::env::var("DUMP").unwrap().split("@@") {
            let p = SourceFile::parse(s);
            println!("==== {s}\n{:?}\n{:#?}", p.errors(), p.syntax_node());
        }
    }
}
