//! Finds circles between the source files of a crate.
//!
//! A file depends on another file when its code, tests excluded, names an item of the other file's module. A re-export
//! (`pub use`) makes no dependency: a name that passes through re-exports counts for the file that defines it. `mod child;`
//! makes no dependency either. Macro bodies are read as tokens, so names inside `format!` count too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, UseTree, Visibility};

/// The segments of a module's path, without `crate`.
type ModulePath = Vec<String>;

/// A module that has a file, or an inline module inside one.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// Paths that the code names, in source order.
    named: Vec<Vec<String>>,
    /// Re-exported name → the path it stands for. The name `*` holds glob re-exports.
    reexports: BTreeMap<String, Vec<Vec<String>>>,
}

/// The modules of one crate.
#[derive(Debug, Default)]
struct Tree {
    modules: BTreeMap<ModulePath, Module>,
}

/// A dependency of one file on another, with one of the names that make it.
pub(crate) type Edges = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.to_token_stream().to_string().contains("test")
    })
}

/// The file that a `#[path = "…"]` names, relative to the file with the attribute.
fn declared_file(attributes: &[Attribute], file: &Path) -> Option<PathBuf> {
    let value = attributes.iter().find(|one| one.path().is_ident("path"))?.meta.require_name_value().ok()?;
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) = &value.value else { return None };
    Some(file.parent()?.join(name.value()))
}

fn flatten_use(tree: &UseTree, prefix: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let with = |name: String| [prefix, &[name]].concat();
    match tree {
        UseTree::Path(path) => flatten_use(&path.tree, &with(path.ident.to_string()), found),
        UseTree::Name(name) if name.ident == "self" => {
            found.push((prefix.last().cloned().unwrap_or_default(), prefix.to_vec()));
        }
        UseTree::Name(name) => found.push((name.ident.to_string(), with(name.ident.to_string()))),
        UseTree::Rename(rename) => found.push((rename.rename.to_string(), with(rename.ident.to_string()))),
        UseTree::Glob(_) => found.push(("*".to_owned(), prefix.to_vec())),
        UseTree::Group(group) => group.items.iter().for_each(|item| flatten_use(item, prefix, found)),
    }
}

/// Collects every `a::b::c` of a token stream, groups of a `use` inside a function included.
fn collect_paths(tokens: TokenStream, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = prefix.to_vec();
    let mut colons = 2;
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                if colons != 2 || path.is_empty() {
                    flush(&mut path, prefix, found);
                }
                path.push(ident.to_string());
                colons = 0;
            }
            TokenTree::Group(group) => {
                let continues = colons == 2 && !path.is_empty() && group.delimiter() == Delimiter::Brace;
                let inner = if continues { path.clone() } else { Vec::new() };
                if !continues {
                    flush(&mut path, prefix, found);
                }
                collect_paths(group.stream(), &inner, found);
                path = prefix.to_vec();
                colons = 2;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                flush(&mut path, prefix, found);
                colons = 2;
            }
        }
    }
    flush(&mut path, prefix, found);
}

fn flush(path: &mut Vec<String>, prefix: &[String], found: &mut Vec<Vec<String>>) {
    if path.len() > prefix.len() && path.len() > 1 {
        found.push(path.clone());
    }
    prefix.clone_into(path);
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_file(root, &[], root.parent().expect("a source folder"));
        tree
    }

    /// Reads a module's file. `folder` holds the files of its children.
    fn read_file(&mut self, file: &Path, path: &[String], folder: &Path) {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.read_items(&parsed.items, file, path, folder);
    }

    fn read_items(&mut self, items: &[Item], file: &Path, path: &[String], folder: &Path) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            match item {
                Item::Mod(child) => {
                    if is_test_only(&child.attrs) {
                        continue;
                    }
                    let name = child.ident.to_string();
                    let (child_path, child_folder) =
                        ([path, std::slice::from_ref(&name)].concat(), folder.join(&name));
                    match &child.content {
                        Some((_, inner)) => self.read_items(inner, file, &child_path, &child_folder),
                        None => {
                            let child_file = declared_file(&child.attrs, file)
                                .unwrap_or_else(|| folder.join(format!("{name}.rs")));
                            self.read_file(&child_file, &child_path, &child_folder);
                        }
                    }
                }
                Item::Use(import) if !is_test_only(&import.attrs) => {
                    let mut found = Vec::new();
                    flatten_use(&import.tree, &[], &mut found);
                    if matches!(import.vis, Visibility::Inherited) {
                        module.named.extend(found.into_iter().map(|(_, path)| path));
                    } else {
                        for (name, path) in found {
                            module.reexports.entry(name).or_default().push(path);
                        }
                    }
                }
                Item::Fn(function) if is_test_only(&function.attrs) => {}
                Item::Impl(block) if is_test_only(&block.attrs) => {}
                Item::Use(_) => {}
                other => collect_paths(other.to_token_stream(), &[], &mut module.named),
            }
        }
        self.modules.insert(path.to_vec(), module);
    }

    /// The module that defines what `path` names, seen from module `from`; `None` for names of other crates.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        if depth > 16 {
            return None;
        }
        let mut rest = path;
        let mut at: ModulePath = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_vec(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            name => {
                let child = [from, &[name.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    return None;
                }
                child
            }
        };
        rest = &rest[1..];
        while let Some(name) = rest.first() {
            if name == "super" {
                at.pop()?;
                rest = &rest[1..];
                continue;
            }
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                rest = &rest[1..];
                continue;
            }
            let module = &self.modules[&at];
            if let Some(target) = module.reexports.get(name).and_then(|targets| targets.first()) {
                let through = [target.as_slice(), &rest[1..]].concat();
                return Some(self.resolve(&at, &through, depth + 1).unwrap_or(at));
            }
            break;
        }
        Some(at)
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (path, module) in &self.modules {
            for named in &module.named {
                let Some(target) = self.resolve(path, named, 0) else { continue };
                let file = &self.modules[&target].file;
                if *file != module.file {
                    let names = edges.entry(module.file.clone()).or_default();
                    names.entry(file.clone()).or_insert_with(|| named.join("::"));
                }
            }
        }
        edges
    }
}

/// Every dependency between the files below the crate root `root` (`lib.rs` or `main.rs`).
pub(crate) fn edges(root: &Path) -> Edges {
    Tree::read(root).edges()
}

fn reaches(edges: &Edges, from: &Path) -> BTreeSet<PathBuf> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(file) = open.pop() {
        for next in edges.get(&file).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

/// Groups of files that depend on one another, each with the names that tie it, one text a circle.
pub(crate) fn circles(edges: &Edges) -> Vec<String> {
    let reached: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        edges.keys().map(|file| (file, reaches(edges, file))).collect();
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for (file, seen) in &reached {
        if done.contains(*file) || !seen.contains(*file) {
            continue;
        }
        let circle: BTreeSet<&PathBuf> =
            seen.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*file))).collect();
        let mut text = String::new();
        for member in &circle {
            done.insert((*member).clone());
            for (target, name) in edges.get(*member).into_iter().flatten() {
                if circle.contains(target) {
                    text.push_str(&format!("  {} -> {}: {name}\n", member.display(), target.display()));
                }
            }
        }
        found.push(text);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a folder")).expect("creates");
            std::fs::write(path, text).expect("writes");
        }
        circles(&edges(&folder.path().join("lib.rs")))
    }

    #[test]
    fn two_files_that_use_one_another_are_a_circle() {
        let found = circles_of(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A; fn f() -> String { format!(\"{}\", crate::b::g()) }"),
            ("b.rs", "use crate::{a::A}; pub fn g() -> A { A }"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("crate::b::g") && found[0].contains("crate::a::A"), "{found:?}");
    }

    #[test]
    fn a_child_that_uses_its_parent_is_a_circle() {
        let found = circles_of(&[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod inner; use inner::B; pub struct A(B);"),
            ("a/inner.rs", "pub struct B; fn f() { use super::{A, c}; }"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn reexports_and_tests_are_no_dependency() {
        let found = circles_of(&[
            ("lib.rs", "mod a; pub use a::C; pub struct Unused;"),
            ("a.rs", "mod b; mod c; pub use b::B; pub use c::C;"),
            ("a/b.rs", "use super::C; pub struct B(C); #[cfg(test)] mod tests { use crate::a::c; }"),
            ("a/c.rs", "pub struct C; #[cfg(test)] mod tests { use super::super::B; }"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }
}
