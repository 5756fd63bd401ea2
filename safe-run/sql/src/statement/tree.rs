//! Reads a statement's parse tree: the tables it reaches, the functions it calls. The only file that names the parser.
//!
//! Walks what *runs*: a DELETE in a function body, a rule, a view or a prepared statement is only stored. What the
//! parser could not read marks the class as [`Class::unread`]; effects found next to it are kept, because more of them
//! can only make the expectation more careful. It must never panic on any input.

use squawk_syntax::{SourceFile, SyntaxKind, SyntaxNode};

use super::{
    Class, Effect, StatementKind as Kind, TableEffect, TableName, Target, TransactionClass, head, locks,
    names,
};
use crate::token::TokenKind;

/// Deepest expression that the parser may see. It recurses, and each level costs it some kilobytes of stack.
const MAX_DEPTH: usize = 1000;

/// Classifies one statement from its text and its tokens.
pub(crate) fn classify(text: &str, words: &head::Words<'_>) -> Class {
    let mut class = Class::new(head::kind(words));
    class.transaction = head::transaction(words);
    class.locks = locks::needed(text);
    match class.kind {
        Kind::Do => class.runs_code = Some("DO block".to_owned()),
        Kind::Call => class.runs_code = Some("CALL".to_owned()),
        _ => {}
    }
    note_settings(words, &mut class);
    match parse(text, words) {
        Ok((root, problem)) => {
            if let Some(statement) = root.children().next() {
                read_statement(&statement, &mut class);
            }
            if let Some(problem) = problem.filter(|_| !head::says_all(words)) {
                unread(&mut class, problem);
            }
        }
        Err(_) if head::says_all(words) => {}
        Err(problem) => unread(&mut class, problem),
    }
    class
}

/// Keeps what the key words said for sure: what must run alone, must.
fn unread(class: &mut Class, problem: String) {
    if class.transaction == TransactionClass::Transactional {
        class.transaction =
            TransactionClass::Unknown { reason: format!("safe-run could not read it: {problem}") };
    }
    class.warnings.push(format!("safe-run could not read it ({problem}); the server decides"));
    class.unread = Some(problem);
}

/// The tree of one statement, and the first thing in it that the parser does not know.
fn parse(text: &str, words: &head::Words<'_>) -> Result<(SyntaxNode, Option<String>), String> {
    if words.depth() > MAX_DEPTH {
        return Err(format!("expressions nested more than {MAX_DEPTH} deep"));
    }
    // The parser is written for editors and guards its loops with panics. None may stop a migration.
    let parsed = std::panic::catch_unwind(|| {
        let parsed = SourceFile::parse(text);
        let errors: Vec<(usize, String)> = parsed
            .errors()
            .iter()
            .map(|error| (error.range().start().into(), error.message().to_owned()))
            .collect();
        (parsed.syntax_node(), errors)
    });
    let (root, errors) = parsed.map_err(|_| "the parser failed".to_owned())?;
    // It also reads function bodies; what it says about those is no syntax error of this statement.
    let base = words.tokens().first().map_or(0, |token| token.range.start);
    let in_body = |at: usize| {
        words.tokens().iter().any(|token| {
            matches!(token.kind, TokenKind::DollarStr | TokenKind::Str)
                && (token.range.start - base..token.range.end - base).contains(&at)
        })
    };
    let mut problem =
        errors.into_iter().find(|(at, _)| !in_body(*at)).map(|(_, message)| message.to_lowercase());
    if problem.is_none() && root.children().filter(|node| node.kind() != SyntaxKind::EMPTY_STMT).count() > 1 {
        problem = Some("more than one statement without a semicolon between them".to_owned());
    }
    Ok((root, problem))
}

fn note_settings(words: &head::Words<'_>, class: &mut Class) {
    if words.setting().as_deref() == Some("session_replication_role") {
        class
            .warnings
            .push("sets session_replication_role: triggers and foreign keys may not fire".to_owned());
    }
}

/// What the statement itself is; then, where something runs, everything below it.
fn read_statement(node: &SyntaxNode, class: &mut Class) {
    use SyntaxKind as S;
    match node.kind() {
        S::EXPLAIN => {
            if explain_runs(node) {
                node.children().for_each(|child| walk(&child, class));
            }
        }
        S::CREATE_TABLE_AS
        | S::SELECT_INTO
        | S::ALTER_TABLE
        | S::ALTER_FOREIGN_TABLE
        | S::COPY
        | S::DECLARE => {
            walk(node, class);
        }
        S::CREATE_MATERIALIZED_VIEW | S::CALL => walk(node, class),
        S::INSERT | S::UPDATE | S::DELETE | S::MERGE | S::SELECT | S::COMPOUND_SELECT | S::PAREN_SELECT => {
            if class.kind == Kind::Other {
                class.kind = main_kind(node.kind());
            }
            walk(node, class);
        }
        S::VALUES | S::TABLE | S::TRUNCATE => walk(node, class),
        S::CREATE_TABLE => class.creates.extend(named(node, S::TABLE_NAME)),
        S::CREATE_SCHEMA => {
            for table in node.children().filter(|child| child.kind() == S::CREATE_TABLE) {
                class.creates.extend(named(&table, S::TABLE_NAME));
            }
        }
        S::EXECUTE => class.runs_code = Some(first_line(node)),
        S::REFRESH => {
            let view = node
                .children()
                .find(|child| child.kind() == S::VIEW_REF)
                .map(|view| Target::Table(name_of(&view)));
            class.effects.extend(view.map(|target| TableEffect {
                target,
                effect: Effect::Unknown,
                cascade: false,
            }));
        }
        S::ALTER_TYPE if child(node, S::ADD_VALUE).is_some() => {
            class.adds_enum_value = child(node, S::TYPE_NAME_REF).map(|name| name_of(&name).to_string());
        }
        S::CREATE_SUBSCRIPTION | S::DROP_SUBSCRIPTION => {
            class.outside_transaction.push("subscriptions reach another server".to_owned());
        }
        _ => read_drop(node, class),
    }
    if node.kind() == S::CALL
        && let Some(name) = child(node, S::PROCEDURE_NAME_REF)
    {
        class.runs_code = Some(format!("CALL {}", name_of(&name)));
    }
}

fn main_kind(kind: SyntaxKind) -> Kind {
    match kind {
        SyntaxKind::INSERT => Kind::Insert,
        SyntaxKind::UPDATE => Kind::Update,
        SyntaxKind::DELETE => Kind::Delete,
        SyntaxKind::MERGE => Kind::Merge,
        _ => Kind::Select,
    }
}

fn read_drop(node: &SyntaxNode, class: &mut Class) {
    use SyntaxKind as S;
    let cascade = child(node, S::CASCADE).is_some();
    let effect = |target, effect| TableEffect { target, effect, cascade };
    match node.kind() {
        S::DROP_TABLE => {
            let tables = node.children().filter(|child| child.kind() == S::TABLE_NAME_REF);
            class.effects.extend(tables.map(|name| effect(Target::Table(name_of(&name)), Effect::Drop)));
        }
        S::DROP_SCHEMA if cascade => {
            let schemas = node.children().filter(|child| child.kind() == S::SCHEMA_REF);
            class
                .effects
                .extend(schemas.map(|name| effect(Target::Schema(name_of(&name).name), Effect::Drop)));
        }
        S::DROP_OWNED => {
            class.effects.push(effect(Target::Everything, Effect::Unknown));
            class.warnings.push("drops everything that a role owns".to_owned());
        }
        S::DROP_EXTENSION if cascade => {
            class.effects.push(effect(Target::Everything, Effect::Unknown));
            class.warnings.push("drops an extension and, with CASCADE, every column of its types".to_owned());
        }
        S::DROP_TYPE | S::DROP_DOMAIN if cascade => {
            class.warnings.push("drops a type and, with CASCADE, every column of that type".to_owned());
        }
        S::DROP_FUNCTION | S::DROP_PROCEDURE | S::DROP_ROUTINE if cascade => {
            class
                .warnings
                .push("drops a function and, with CASCADE, the triggers and defaults that use it".to_owned());
        }
        _ => {}
    }
}

/// Effects and calls of a node that runs, and of everything below it.
fn walk(root: &SyntaxNode, class: &mut Class) {
    use SyntaxKind as S;
    for node in root.descendants() {
        match node.kind() {
            S::INSERT => {
                push(class, named(&node, S::RELATION_NAME_REF), Effect::Insert);
                let updates = node.descendants().any(|below| {
                    below.kind() == S::CONFLICT_DO_UPDATE_SET
                        && below.ancestors().find(|above| above.kind() == S::INSERT).as_ref() == Some(&node)
                });
                if updates {
                    push(class, named(&node, S::RELATION_NAME_REF), Effect::Update);
                }
            }
            S::UPDATE => push(class, named(&node, S::RELATION_NAME), Effect::Update),
            S::DELETE => push(class, named(&node, S::RELATION_NAME), Effect::Delete),
            S::MERGE => push(class, named(&node, S::TABLE_RELATION_NAME), Effect::Unknown),
            S::TRUNCATE => {
                let cascade = child(&node, S::CASCADE).is_some();
                let tables = node.descendants().filter(|below| below.kind() == S::TABLE_NAME_REF);
                class.effects.extend(tables.map(|name| TableEffect {
                    target: Target::Table(name_of(&name)),
                    effect: Effect::Truncate,
                    cascade,
                }));
            }
            S::CREATE_TABLE_AS | S::INTO_CLAUSE => class.creates.extend(named(&node, S::TABLE_NAME)),
            S::COPY => copy(&node, class),
            S::ALTER_TABLE => alter_table(&node, class),
            S::CALL_EXPR => call(&node, class),
            _ => {}
        }
    }
}

fn copy(node: &SyntaxNode, class: &mut Class) {
    use SyntaxKind as S;
    let program = node.descendants_with_tokens().any(|element| element.kind() == S::PROGRAM_KW);
    if child(node, S::COPY_FROM).is_some() {
        if let Some(table) = child(node, S::COPY_TABLE) {
            push(class, named(&table, S::TABLE_NAME_REF), Effect::Insert);
        }
        if program {
            class.outside_transaction.push("COPY … FROM PROGRAM runs a program on the server".to_owned());
        }
    } else if program {
        class.outside_transaction.push("COPY … TO PROGRAM runs a program on the server".to_owned());
    } else if node.descendants().any(|below| below.kind() == S::COPY_PROGRAM) {
        class.outside_transaction.push("COPY … TO writes a file on the server".to_owned());
    }
}

fn alter_table(node: &SyntaxNode, class: &mut Class) {
    use SyntaxKind as S;
    let Some(table) = named(node, S::TABLE_RELATION_NAME) else { return };
    for action in node.children() {
        match action.kind() {
            S::DISABLE_TRIGGER => class.warnings.push(format!("disables triggers on {table}")),
            S::ENABLE_REPLICA_TRIGGER => {
                class.warnings.push(format!("lets a trigger on {table} fire only on replicas"));
            }
            S::DISABLE_RULE => class.warnings.push(format!("disables a rule on {table}")),
            S::DROP_COLUMN => {
                let column =
                    child(&action, S::COLUMN_NAME_REF).map_or_else(String::new, |name| name_of(&name).name);
                class.warnings.push(format!("drops column {column} of {table}"));
            }
            S::SET_UNLOGGED => {
                class.warnings.push(format!("makes {table} unlogged: a crash of the server empties it"));
            }
            S::TABLE_RENAME_TO => {
                if let Some(new) = named(&action, S::TABLE_NAME) {
                    let new = TableName { schema: table.schema.clone(), name: new.name };
                    class.renames.push((table.clone(), new));
                }
            }
            S::SET_SCHEMA => {
                if let Some(schema) = child(&action, S::SCHEMA_REF) {
                    let new = TableName { schema: Some(name_of(&schema).name), name: table.name.clone() };
                    class.renames.push((table.clone(), new));
                }
            }
            S::ATTACH_PARTITION | S::DETACH_PARTITION => push(class, Some(table.clone()), Effect::Unknown),
            S::MERGE_PARTITIONS | S::SPLIT_PARTITION => {
                push(class, Some(table.clone()), Effect::Unknown);
                // The first names are the old partitions; whatever follows is new and has no rows to compare with.
                for name in action.descendants().filter(|below| below.kind() == S::TABLE_NAME_REF) {
                    push(class, Some(name_of(&name)), Effect::Unknown);
                }
            }
            _ => {}
        }
    }
}

fn call(node: &SyntaxNode, class: &mut Class) {
    use SyntaxKind as S;
    let callee = node.children().next().filter(|child| matches!(child.kind(), S::NAME_REF | S::FIELD_EXPR));
    let Some(callee) = callee else { return };
    let function = name_of(&callee);
    if let Some(effect) = names::outside_transaction(&function)
        && !class.outside_transaction.contains(&effect)
    {
        class.outside_transaction.push(effect);
    }
    if !class.functions.contains(&function) {
        class.functions.push(function);
    }
}

fn explain_runs(node: &SyntaxNode) -> bool {
    use SyntaxKind as S;
    let is_off = |option: &SyntaxNode| {
        child(option, S::EXPLAIN_OPTION_VALUE).is_some_and(|value| {
            let value = value.text().to_string();
            ["off", "false", "0"].iter().any(|off| value.trim_matches('\'').eq_ignore_ascii_case(off))
        })
    };
    let names_analyze = |option: &SyntaxNode| {
        child(option, S::EXPLAIN_OPTION_NAME).is_some_and(|name| {
            let name = name.text().to_string();
            name.eq_ignore_ascii_case("analyze") || name.eq_ignore_ascii_case("analyse")
        })
    };
    node.descendants().any(|below| match below.kind() {
        S::EXPLAIN_ANALYZE => true,
        S::EXPLAIN_OPTION => names_analyze(&below) && !is_off(&below),
        _ => false,
    })
}

fn push(class: &mut Class, table: Option<TableName>, effect: Effect) {
    let Some(table) = table else { return };
    let effect = TableEffect { target: Target::Table(table), effect, cascade: false };
    if !class.effects.contains(&effect) {
        class.effects.push(effect);
    }
}

fn child(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    node.children().find(|child| child.kind() == kind)
}

/// The name in the first child of that kind; `ONLY` and parentheses around it are passed over.
fn named(node: &SyntaxNode, kind: SyntaxKind) -> Option<TableName> {
    let outer = child(node, kind)?;
    let inner =
        outer.descendants().find(|below| matches!(below.kind(), SyntaxKind::PATH_REF | SyntaxKind::PATH));
    Some(name_of(&inner.unwrap_or(outer)))
}

fn name_of(node: &SyntaxNode) -> TableName {
    names::parse(&node.text().to_string())
}

fn first_line(node: &SyntaxNode) -> String {
    super::significant_text(&node.text().to_string(), 60)
}
