//! The crate's sources as modules: which items each defines, and which paths it writes down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemExternCrate, ItemMod, ItemUse, Macro, Meta, UseTree, Visibility};

/// Files by their path below `src`.
pub(crate) type Files = BTreeMap<String, String>;

/// A path as it is written somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    pub(crate) is_test: bool,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In a type, an expression, a macro or an attribute.
    Inline,
    /// `use` for the module itself.
    Use,
    /// `pub use`, in any form.
    ReExport,
    /// `use ...::*`.
    Glob,
}

/// Stands first in a path that begins with `::`: it leads out of the crate, whatever the modules are called.
pub(crate) const OUTSIDE: &str = "::";

/// A module: a file, or a block in a file.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Below `src`.
    pub(crate) file: String,
    /// The names that it defines, without its modules.
    pub(crate) items: BTreeSet<String>,
    /// The names that `use` brings in.
    pub(crate) aliases: BTreeMap<String, Written>,
    pub(crate) written: Vec<Written>,
}

/// The modules of a crate by their path: `storage::fs::real`. The root is empty.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    pub(crate) by_path: BTreeMap<String, Module>,
    /// What the reader cannot follow, with its place.
    pub(crate) blind_spots: Vec<String>,
}

/// The path of something in a module.
pub(crate) fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// The module that a module is in.
pub(crate) fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

/// All Rust files below a folder.
pub(crate) fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    collect(folder, folder, &mut found);
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

impl Modules {
    /// Reads the modules from `lib.rs` on.
    pub(crate) fn read(files: &Files) -> Self {
        let mut modules = Self::default();
        let mut reader = Reader { files, modules: &mut modules, module: String::new(), file: String::new(), tests: 0 };
        reader.read_file("", "lib.rs", false);
        modules
    }

    /// The files that no module was read from.
    pub(crate) fn unread<'f>(&self, files: &'f Files) -> Vec<&'f str> {
        let read: BTreeSet<&str> = self.by_path.values().map(|module| module.file.as_str()).collect();
        files.keys().map(String::as_str).filter(|file| !read.contains(file)).collect()
    }
}

struct Reader<'f, 'm> {
    files: &'f Files,
    modules: &'m mut Modules,
    module: String,
    file: String,
    /// How many enclosing items are there for tests only.
    tests: usize,
}

impl Reader<'_, '_> {
    fn read_file(&mut self, module: &str, file: &str, is_test: bool) {
        let parsed = syn::parse_file(&self.files[file]).unwrap_or_else(|error| panic!("{file}: {error}"));
        let outer = (std::mem::replace(&mut self.module, module.to_owned()), self.file.clone(), self.tests);
        file.clone_into(&mut self.file);
        self.tests = usize::from(is_test);
        self.begin_module();
        self.visit_file(&parsed);
        (self.module, self.file, self.tests) = outer;
    }

    fn begin_module(&mut self) {
        let module = Module { file: self.file.clone(), ..Module::default() };
        self.modules.by_path.insert(self.module.clone(), module);
    }

    fn current(&mut self) -> &mut Module {
        self.modules.by_path.get_mut(&self.module).unwrap()
    }

    fn write(&mut self, segments: Vec<String>, line: usize, kind: Kind) {
        let is_test = self.tests > 0;
        self.current().written.push(Written { segments, line, is_test, kind });
    }

    fn blind_spot(&mut self, line: usize, what: &str) {
        self.modules.blind_spots.push(format!("{}:{line}: {what}", self.file));
    }

    /// Each name of a `use`, with the name that it gets here.
    fn use_tree(&mut self, tree: &UseTree, before: &[String], kind: Kind) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident), kind),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, before, kind)),
            UseTree::Glob(glob) => {
                self.write(before.to_vec(), glob.star_token.spans[0].start().line, Kind::Glob);
            }
            UseTree::Name(name) => self.used(with(&name.ident), &name.ident, &name.ident, kind),
            UseTree::Rename(rename) => self.used(with(&rename.ident), &rename.ident, &rename.rename, kind),
        }
    }

    fn used(&mut self, mut segments: Vec<String>, name: &syn::Ident, here: &syn::Ident, kind: Kind) {
        let mut here = here.to_string();
        if name == "self" && segments.len() > 1 {
            segments.pop();
            if here == "self" {
                here.clone_from(segments.last().unwrap());
            }
        }
        let (line, is_test) = (name.span().start().line, self.tests > 0);
        let written = Written { segments, line, is_test, kind };
        // What is used for the module is not hidden by what its tests use.
        let aliases = &mut self.current().aliases;
        if !is_test || !aliases.contains_key(&here) {
            aliases.insert(here, written.clone());
        }
        self.current().written.push(written);
    }

    /// The paths in tokens that are no syntax tree: `a::b`, and texts in attributes that are paths.
    fn tokens(&mut self, tokens: TokenStream, texts: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is =
            |at: usize, sign: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream(), texts),
                TokenTree::Literal(literal) if texts => {
                    let (text, line) = (literal.to_string(), literal.span().start().line);
                    let path: Vec<String> = text.trim_matches('"').split("::").map(str::to_owned).collect();
                    if path.len() > 1 {
                        self.write(path, line, Kind::Inline);
                    }
                }
                TokenTree::Ident(first) => {
                    let goes_on = at >= 1 && (is(at - 1, '.') || (at >= 2 && is(at - 1, ':') && is(at - 2, ':')));
                    let (mut path, line) = (vec![first.to_string()], first.span().start().line);
                    while is(at + 1, ':') && is(at + 2, ':') {
                        match tokens.get(at + 3) {
                            Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                                // `use a::{b, c}` in a macro.
                                if !goes_on {
                                    self.group(group.stream(), &path, line);
                                }
                                break;
                            }
                            _ => break,
                        }
                        at += 3;
                    }
                    if !goes_on {
                        self.write(path, line, Kind::Inline);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn group(&mut self, tokens: TokenStream, before: &[String], line: usize) {
        for token in tokens {
            if let TokenTree::Ident(name) = token {
                self.write(before.iter().cloned().chain([name.to_string()]).collect(), line, Kind::Inline);
            }
        }
    }

    fn with_attributes(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let is_test = attributes.iter().any(is_for_tests);
        self.tests += usize::from(is_test);
        visit(self);
        self.tests -= usize::from(is_test);
    }
}

fn outside(colons: Option<&syn::Token![::]>) -> Vec<String> {
    colons.map(|_| OUTSIDE.to_owned()).into_iter().collect()
}

/// `#[cfg(test)]` or `#[test]`.
fn is_for_tests(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        Meta::Path(path) => path.is_ident("test"),
        _ => false,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<&syn::Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Reader<'_, '_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Some(name) = name(item) {
            self.current().items.insert(name.to_string());
        }
        self.with_attributes(attributes(item), |this| visit::visit_item(this, item));
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        self.with_attributes(attributes, |this| visit::visit_impl_item(this, item));
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let line = item.ident.span().start().line;
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            return self.blind_spot(line, "a module whose file has another name");
        }
        let (module, is_test) = (join(&self.module, &item.ident.to_string()), self.tests > 0);
        if let Some((_, items)) = &item.content {
            let outer = std::mem::replace(&mut self.module, module);
            self.begin_module();
            items.iter().for_each(|item| self.visit_item(item));
            self.module = outer;
            return;
        }
        let base = module.replace("::", "/");
        let file =
            [format!("{base}.rs"), format!("{base}/mod.rs")].into_iter().find(|file| self.files.contains_key(file));
        match file {
            Some(file) => self.read_file(&module, &file, is_test),
            None => self.blind_spot(line, "a module without a file"),
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let kind = if matches!(item.vis, Visibility::Inherited) { Kind::Use } else { Kind::ReExport };
        self.use_tree(&item.tree, &outside(item.leading_colon.as_ref()), kind);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        let here = item.rename.as_ref().map_or(&item.ident, |(_, rename)| rename);
        self.used(vec![item.ident.to_string()], &item.ident, here, Kind::Use);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = outside(path.leading_colon.as_ref());
        segments.extend(path.segments.iter().map(|segment| segment.ident.to_string()));
        self.write(segments, path.segments[0].ident.span().start().line, Kind::Inline);
        visit::visit_path(self, path);
    }

    /// `pub(in crate::...)` says who may look, not what is looked at.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.tokens(list.tokens.clone(), true),
            Meta::NameValue(value) if !value.path.is_ident("doc") => self.visit_expr(&value.value),
            _ => {}
        }
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.visit_path(&called.path);
        let tokens = called.tokens.to_string();
        if called.path.is_ident("include") && !tokens.contains("env ! (\"OUT_DIR\")") {
            self.blind_spot(called.path.segments[0].ident.span().start().line, "code from another file");
        }
        self.tokens(called.tokens.clone(), false);
    }
}
