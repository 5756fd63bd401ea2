//! Every hint that the sources hold, by reading them as Rust.
//!
//! A hint is a string within the arguments of `with_hint`. Where the argument is made elsewhere, it is each string that reads as a
//! sentence in the function that calls it, in a function whose name says that it makes hints, or in a constant.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprLit, ExprMethodCall, ImplItemFn, ItemConst, ItemFn, ItemMod, ItemStatic, Lit,
    LitStr, Macro,
    visit::{self, Visit},
};

/// Sentences by source file, relative to the workspace.
pub type Hints = BTreeMap<String, BTreeSet<String>>;

/// The programs' sources.
pub const CRATES: [&str; 8] = [
    "common",
    "common/sqlite",
    "common/store",
    "backup",
    "restore",
    "safe-run",
    "safe-run/checks",
    "safe-run/sql",
];

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// Every hint of the programs.
pub fn hints() -> Hints {
    let root = root();
    let mut all = Hints::new();
    for name in CRATES {
        for path in sources(&root.join(name).join("src")) {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let found = of(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if !found.is_empty() {
                let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                all.insert(name, found);
            }
        }
    }
    all
}

/// Rust files below a folder, those of tests too.
pub fn every_file(folder: &Path) -> Vec<PathBuf> {
    let mut files = sources(folder);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "tests.rs") || folder.ends_with("tests") {
                files.push(path);
            }
        }
    }
    files
}

/// Rust files below a folder; a file `tests.rs` and a folder `tests` are none of the program.
pub fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The hints of one file.
pub fn of(source: &str) -> syn::Result<BTreeSet<String>> {
    let file = syn::parse_file(source)?;
    let mut scan = Scan::default();
    scan.visit_file(&file);
    for name in &scan.used {
        scan.found.extend(scan.constants.get(name).cloned().unwrap_or_default());
    }
    Ok(scan.found)
}

#[derive(Default)]
struct Scan {
    found: BTreeSet<String>,
    constants: BTreeMap<String, BTreeSet<String>>,
    /// Names of constants within arguments of `with_hint`.
    used: BTreeSet<String>,
}

impl Scan {
    fn function(&mut self, name: &str, attributes: &[Attribute], walk: impl FnOnce(&mut Strings)) {
        if is_test(attributes) {
            return;
        }
        let mut strings =
            Strings { is_maker: name.contains("hint") || name == "ways_on", ..Strings::default() };
        walk(&mut strings);
        self.used.extend(strings.names);
        self.found.extend(strings.in_arguments);
        if strings.is_maker || strings.has_made_elsewhere {
            self.found.extend(strings.sentences);
        }
    }

    fn constant(&mut self, name: &str, value: &Expr) {
        let mut strings = Strings::default();
        strings.visit_expr(value);
        if name.contains("HINT") {
            self.found.extend(strings.sentences.clone());
        }
        self.constants.insert(name.to_owned(), strings.sentences);
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig.ident.to_string(), &function.attrs, |strings| {
            strings.visit_block(&function.block);
        });
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig.ident.to_string(), &function.attrs, |strings| {
            strings.visit_block(&function.block);
        });
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        self.constant(&item.ident.to_string(), &item.expr);
    }

    fn visit_item_static(&mut self, item: &'ast ItemStatic) {
        self.constant(&item.ident.to_string(), &item.expr);
    }
}

/// Strings of one function.
#[derive(Default)]
struct Strings {
    is_maker: bool,
    /// An argument of `with_hint` is no string.
    has_made_elsewhere: bool,
    within_arguments: bool,
    within_other: bool,
    in_arguments: BTreeSet<String>,
    sentences: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Strings {
    fn string(&mut self, text: String) {
        if self.within_other || !is_sentence(&text) {
            return;
        }
        if self.within_arguments {
            self.in_arguments.insert(text.clone());
        }
        self.sentences.insert(text);
    }

    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.string(text.value());
                    }
                }
                TokenTree::Ident(name) if self.within_arguments => {
                    self.names.insert(name.to_string());
                }
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Strings {
    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let method = call.method.to_string();
        self.visit_expr(&call.receiver);
        let before = (self.within_arguments, self.within_other);
        match method.as_str() {
            "with_hint" => {
                self.within_arguments = true;
                let known = self.in_arguments.len();
                call.args.iter().for_each(|argument| self.visit_expr(argument));
                self.has_made_elsewhere |= self.in_arguments.len() == known;
            }
            // Sentences too, but they say what state the database is in.
            "with_database_state" | "expect" => {
                self.within_other = true;
                call.args.iter().for_each(|argument| self.visit_expr(argument));
            }
            _ => call.args.iter().for_each(|argument| self.visit_expr(argument)),
        }
        (self.within_arguments, self.within_other) = before;
    }

    fn visit_expr_lit(&mut self, literal: &'ast ExprLit) {
        if let Lit::Str(text) = &literal.lit {
            self.string(text.value());
        }
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if self.within_arguments
            && let Some(last) = path.path.segments.last()
        {
            self.names.insert(last.ident.to_string());
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.tokens(call.tokens.clone());
    }
}

/// Whether it is there for tests alone.
pub fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

/// What begins like a sentence beside a hint, and is the message or what it is known by.
const MESSAGES: [&str; 5] =
    ["FATAL:  ", "COMMENT ON ", "TLS with {place}", "`{}` is no query", "`{}` would end"];

/// It begins like a sentence and has several words; SQL does not count.
fn is_sentence(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let words = text.split_whitespace().count();
    let is_sql = [
        "SELECT",
        "WITH",
        "INSERT",
        "SET",
        "ALTER",
        "BEGIN",
        "SAVEPOINT",
        "COPY",
        "DROP",
        "CREATE",
        "GRANT",
        "REFRESH",
    ]
    .contains(&text.split_whitespace().next().unwrap_or_default());
    let is_message = MESSAGES.iter().any(|message| text.starts_with(message));
    (first.is_uppercase() || first == '`') && words > 2 && !is_sql && !is_message
}

/// Whether a hint that was given can be what the sentence of the source makes: its fixed parts, in their order.
pub fn fits(sentence: &str, given: &str) -> bool {
    let mut rest = given;
    parts(sentence).iter().all(|part| match rest.find(part.as_str()) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// What stands between the placeholders of a format string.
fn parts(sentence: &str) -> Vec<String> {
    let (mut parts, mut part, mut characters) = (Vec::new(), String::new(), sentence.chars().peekable());
    while let Some(c) = characters.next() {
        match c {
            '{' if characters.peek() == Some(&'{') => part.extend(characters.next()),
            '}' if characters.peek() == Some(&'}') => part.extend(characters.next()),
            '{' => {
                characters.by_ref().find(|c| *c == '}');
                parts.push(std::mem::take(&mut part));
            }
            _ => part.push(c),
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}
