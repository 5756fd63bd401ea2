//! Who uses whom, read from the sources as Rust.
//!
//! The modules right below a crate's root are its rooms; a file and the folder of its name are one. The compiler keeps crates from
//! reaching up. Between the rooms of one crate nothing does but this test: what is in a circle can only be understood and changed as
//! a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, Macro, UseTree};

use super::hints::scan;

/// What stands for the items of the root itself.
const ROOT: &str = "(root)";

/// The rooms that each room of a crate uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_room_of_a_crate_is_in_a_circle() {
    let mut wrong = String::new();
    for name in scan::CRATES {
        for circle in circles(&graph(&scan::root().join(name).join("src"))) {
            wrong.push_str(&format!("{name}: {circle:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "rooms that use each other:\n{wrong}");
}

#[test]
fn a_circle_between_two_rooms_is_seen_in_every_spelling() {
    for (there, back) in [
        ("use crate::b::x;", "use super::a::y;"),
        ("use crate::{c::z, b::{self, x}};", "fn f() { crate::a::y(); }"),
        ("fn f() -> super::b::X { todo() }", "fn f() { println!(\"{}\", crate::a::y()); }"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("ours");
        write("lib.rs", "mod a; mod b; mod c;");
        write("a.rs", there);
        write("b.rs", back);
        write("c.rs", "#[cfg(test)] mod tests { use crate::a::y; } use std::fmt;");
        let expected = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        assert_eq!(circles(&graph(folder.path())), [expected], "{there} {back}");
        write("b.rs", "// crate::a::y\nconst A: &str = \"crate::a\";");
        assert_eq!(circles(&graph(folder.path())), [], "{there}");
    }
}

fn graph(source: &Path) -> Graph {
    let files = scan::sources(source);
    let modules: Vec<Vec<String>> =
        files.iter().map(|file| module(file.strip_prefix(source).expect("below"))).collect();
    let rooms: BTreeSet<String> = modules.iter().filter_map(|module| module.first().cloned()).collect();
    let handed_on = handed_on(&std::fs::read_to_string(source.join("lib.rs")).expect("every crate has one"));
    let mut graph: Graph =
        rooms.iter().cloned().chain([ROOT.to_owned()]).map(|room| (room, BTreeSet::new())).collect();
    for (file, module) in files.iter().zip(&modules) {
        if file.file_name().is_some_and(|name| name == "main.rs") {
            continue;
        }
        let text = std::fs::read_to_string(file).expect("a source file");
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut uses = Uses { module, rooms: &rooms, handed_on: &handed_on, found: BTreeSet::new() };
        uses.visit_file(&parsed);
        let room = module.first().map_or(ROOT, String::as_str);
        uses.found.remove(room);
        graph.get_mut(room).expect("every room is in it").extend(uses.found);
    }
    graph
}

/// Names that the root hands on from its rooms.
fn handed_on(root: &str) -> BTreeMap<String, String> {
    fn names(tree: &UseTree, room: Option<&str>, found: &mut BTreeMap<String, String>) {
        match tree {
            UseTree::Path(path) => {
                let first = path.ident.to_string();
                names(&path.tree, room.or_else(|| (first != "self").then_some(&first)), found);
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| names(item, room, found)),
            UseTree::Name(syn::UseName { ident }) | UseTree::Rename(syn::UseRename { rename: ident, .. }) => {
                found.extend(room.map(|room| (ident.to_string(), room.to_owned())));
            }
            UseTree::Glob(_) => {}
        }
    }
    let mut found = BTreeMap::new();
    for item in &syn::parse_file(root).expect("it is Rust").items {
        if let Item::Use(item) = item
            && matches!(item.vis, syn::Visibility::Public(_))
        {
            names(&item.tree, None, &mut found);
        }
    }
    found
}

/// The module that a file is, from the root.
fn module(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod")
        || matches!(&parts[..], [only] if only == "lib" || only == "main")
    {
        parts.pop();
    }
    parts
}

struct Uses<'a> {
    module: &'a [String],
    rooms: &'a BTreeSet<String>,
    /// What the root hands on by `pub use`, and the room where it is: that is the crate's face, and no arrow.
    handed_on: &'a BTreeMap<String, String>,
    found: BTreeSet<String>,
}

impl Uses<'_> {
    /// A path as it is written, in a `use` or elsewhere.
    fn path(&mut self, segments: &[String]) {
        let Some(first) = segments.first() else { return };
        let base = match first.as_str() {
            "crate" => 0,
            "self" => self.module.len(),
            "super" => {
                let ups = segments.iter().take_while(|segment| *segment == "super").count();
                let Some(base) = self.module.len().checked_sub(ups) else { return };
                base
            }
            // A bare name is a module only at the root: there, one of the rooms.
            name if self.module.is_empty() && self.rooms.contains(name) => {
                self.found.insert(name.to_owned());
                return;
            }
            _ => return,
        };
        let rest = segments.iter().find(|segment| !matches!(segment.as_str(), "crate" | "self" | "super"));
        let room = if base == 0 {
            rest.and_then(|name| self.rooms.get(name).or_else(|| self.handed_on.get(name)))
        } else {
            self.module.first()
        };
        match room {
            Some(room) if !self.rooms.contains(room) => {} // The root hands on what is of another crate.
            room => drop(self.found.insert(room.map_or(ROOT, String::as_str).to_owned())),
        }
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
            UseTree::Name(name) => self.path(&with(&name.ident)),
            UseTree::Rename(rename) => self.path(&with(&rename.ident)),
            UseTree::Glob(_) => self.path(before),
        }
    }

    /// Paths within a macro's arguments, which are no syntax until it is expanded.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if path.last().is_none_or(|last| last != "::") {
                        self.spelled(&path);
                        path.clear();
                    }
                    path.push(name.to_string());
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => match path.last_mut() {
                    Some(last) if last == ":" => *last = "::".to_owned(),
                    Some(_) => path.push(":".to_owned()),
                    None => {}
                },
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {
                    self.spelled(&path);
                    path.clear();
                }
            }
        }
        self.spelled(&path);
    }

    fn spelled(&mut self, path: &[String]) {
        let segments: Vec<String> = path.iter().filter(|part| !part.starts_with(':')).cloned().collect();
        if segments.len() > 1 {
            self.path(&segments);
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !scan::is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    /// A module in the midst of a file is one level deeper: what it calls `super` is this file.
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let Some((_, items)) = &item.content else { return };
        let module = [self.module, &[item.ident.to_string()]].concat();
        let mut inner =
            Uses { module: &module, rooms: self.rooms, handed_on: self.handed_on, found: BTreeSet::new() };
        items.iter().for_each(|item| inner.visit_item(item));
        self.found.extend(inner.found);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if self.module.is_empty() && matches!(item.vis, syn::Visibility::Public(_)) {
            return;
        }
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.path(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.tokens(item.tokens.clone());
    }
}

/// Rooms that reach each other, the larger circles first.
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|room| (room, reached(graph, room))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for room in graph.keys() {
        if circles.iter().any(|circle| circle.contains(room)) {
            continue;
        }
        let circle: BTreeSet<String> = reach[room]
            .iter()
            .filter(|other| reach[**other].contains(room))
            .map(|other| (*other).clone())
            .collect();
        if circle.len() > 1 {
            circles.push(circle);
        }
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// All rooms that can be reached from one by one or more arrows.
fn reached<'a>(graph: &'a Graph, from: &String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&'a String> = graph.get(from).into_iter().flatten().collect();
    while let Some(room) = open.pop() {
        if found.insert(room) {
            open.extend(graph.get(room).into_iter().flatten());
        }
    }
    found
}
