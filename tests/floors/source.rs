//! The imports of Rust source: for each file, outside tests, the modules that its paths lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

/// An import of one file by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: String,
    pub to: String,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

/// Files of source by module: `lib::cgroup::mount`.
pub struct Source {
    files: BTreeMap<String, Module>,
}

/// Paths and names in a file.
#[derive(Default)]
struct Module {
    /// Re-exported names, and the absolute paths behind them.
    exports: HashMap<String, Vec<String>>,
    /// Absolute paths outside tests.
    paths: BTreeSet<Vec<String>>,
    /// Public items of the file and public methods of its types.
    public: BTreeSet<String>,
    /// Paths that lead to other crates, outside tests.
    foreign: BTreeSet<Vec<String>>,
}

impl Source {
    /// Reads the files below a folder.
    ///
    /// # Panics
    /// If a file can't be read or isn't Rust.
    pub fn read(src: &Path) -> Self {
        let mut open = vec![src.to_path_buf()];
        let mut files = Vec::new();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()),
                );
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read(&path).expect("a file");
                let name = path.strip_prefix(src).expect("below it").to_str().expect("UTF-8").to_owned();
                files.push((name, String::from_utf8(text).expect("UTF-8")));
            }
        }
        Self::of(files.into_iter())
    }

    /// Builds a source from files, by their paths below src.
    pub fn of(files: impl Iterator<Item = (String, String)>) -> Self {
        let texts: BTreeMap<_, _> =
            files.map(|(path, text)| (path, syn::parse_file(&text).expect("Rust"))).collect();
        let mut modules = BTreeMap::new();
        for (root, file) in [("lib", "lib.rs"), ("bin", "main.rs")] {
            let mut open = vec![(vec![root.to_owned()], file.to_owned(), String::new())];
            while let Some((module, file, folder)) = open.pop() {
                let Some(parsed) = texts.get(&file) else { continue };
                for child in children(&parsed.items) {
                    let path = format!("{folder}{child}");
                    let module = module.iter().cloned().chain([child]).collect();
                    open.push((module, format!("{path}.rs"), format!("{path}/")));
                }
                modules.insert(module, parsed);
            }
        }
        let names: BTreeSet<Vec<String>> = modules.keys().cloned().collect();
        let files =
            modules.into_iter().map(|(module, parsed)| (module.join("::"), read(&module, parsed, &names)));
        Self { files: files.collect() }
    }

    /// Returns its imports from file to file, each once.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = BTreeSet::new();
        for (from, module) in &self.files {
            for to in module.paths.iter().filter_map(|path| self.resolve(path, 0)).filter(|to| to != from) {
                edges.insert(Edge { from: from.clone(), to });
            }
        }
        edges.into_iter().collect()
    }

    /// Returns the public items of the library by the modules that define them, and the public
    /// methods of its types.
    pub fn public(&self) -> impl Iterator<Item = String> {
        let files = self.files.iter().filter(|(module, _)| module.split("::").next() == Some("lib"));
        files.flat_map(|(module, file)| file.public.iter().map(move |item| format!("{module}::{item}")))
    }

    /// Returns the paths to other crates in the files of a module and below it, with the file of
    /// each.
    pub fn foreign(&self, below: &str) -> impl Iterator<Item = (&str, &[String])> {
        let files = self.files.iter().filter(move |(module, _)| module.starts_with(below));
        files.flat_map(|(module, file)| file.foreign.iter().map(|path| (module.as_str(), path.as_slice())))
    }

    /// Returns the file with the target of an absolute path; `None` if that is a module.
    fn resolve(&self, path: &[String], depth: usize) -> Option<String> {
        assert!(depth < 9, "{path:?} leads to itself");
        let known =
            (1..=path.len()).rev().find(|&length| self.files.contains_key(&path[..length].join("::")))?;
        let Some(item) = path.get(known) else {
            // A function may be re-exported under the name of its module.
            let (name, parent) = path.split_last()?;
            let behind = self.files.get(&parent.join("::"))?.exports.get(name)?;
            return if behind == path { None } else { self.resolve(behind, depth + 1) };
        };
        let module = path[..known].join("::");
        match self.files[&module].exports.get(item) {
            Some(behind) => {
                let behind: Vec<_> = behind.iter().chain(&path[known + 1..]).cloned().collect();
                self.resolve(&behind, depth + 1)
            }
            None => Some(module),
        }
    }
}

/// Returns the modules that a file declares and that have files of their own.
fn children(items: &[syn::Item]) -> Vec<String> {
    let modules = items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && !is_test(&module.attrs) => Some(module),
        _ => None,
    });
    modules.map(|module| module.ident.to_string()).collect()
}

fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("test")
            || attr.path().is_ident("cfg")
                && attr.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn read(module: &[String], parsed: &syn::File, names: &BTreeSet<Vec<String>>) -> Module {
    let mut reader = Reader {
        scope: module.to_vec(),
        file: module,
        names,
        aliases: HashMap::new(),
        module: Module::default(),
        is_first: true,
    };
    // Twice, since a path may begin with a name that is imported further down.
    reader.visit_file(parsed);
    reader.is_first = false;
    reader.visit_file(parsed);
    reader.module
}

/// Reader of one file.
struct Reader<'a> {
    /// Current module, which may be one within the file.
    scope: Vec<String>,
    file: &'a [String],
    /// All modules that have files of their own.
    names: &'a BTreeSet<Vec<String>>,
    /// Names that stand for modules.
    aliases: HashMap<String, Vec<String>>,
    module: Module,
    is_first: bool,
}

impl Reader<'_> {
    /// Returns the absolute path behind a path; `None` if it leads to another crate, or is a name
    /// of the file's own.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => vec![self.file[0].clone()],
            "memctl" => vec!["lib".to_owned()],
            "self" => self.scope.clone(),
            "super" => self.scope.split_last()?.1.to_vec(),
            name => {
                let child: Vec<_> = self.scope.iter().cloned().chain([name.to_owned()]).collect();
                if self.names.contains(&child) { child } else { self.aliases.get(name)?.clone() }
            }
        };
        let mut rest = rest;
        while let Some((first, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
            debug_assert_eq!(first, "super");
            base.pop();
            rest = after;
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn path(&mut self, path: &[String]) {
        if self.is_first {
            return;
        }
        match self.absolute(path) {
            Some(path) => self.module.paths.insert(path),
            None => self.module.foreign.insert(path.to_vec()),
        };
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String], is_public: bool) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &with(&path.ident), is_public),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, before, is_public));
            }
            syn::UseTree::Glob(_) => {
                self.path(&before.iter().cloned().chain(["*".to_owned()]).collect::<Vec<_>>());
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                let name = before.last().cloned().unwrap_or_default();
                self.named(before, name, is_public);
            }
            syn::UseTree::Name(name) => self.named(&with(&name.ident), name.ident.to_string(), is_public),
            syn::UseTree::Rename(name) => self.named(&with(&name.ident), name.rename.to_string(), is_public),
        }
    }

    fn named(&mut self, path: &[String], name: String, is_public: bool) {
        let Some(absolute) = self.absolute(path) else {
            self.module.foreign.insert(path.to_vec());
            return;
        };
        if is_public && self.scope == self.file {
            self.module.exports.insert(name.clone(), absolute.clone());
            // A re-export of its own children is no import.
            if absolute.starts_with(self.file) {
                return;
            }
        }
        self.aliases.entry(name).or_insert_with(|| absolute.clone());
        if !self.is_first {
            self.module.paths.insert(absolute);
        }
    }

    /// Collects the paths in the arguments of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens
            .into_iter()
            .chain([TokenTree::Punct(proc_macro2::Punct::new(';', proc_macro2::Spacing::Alone))])
        {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path_of_macro(&path);
                        path.clear();
                    }
                    path.push(ident.to_string());
                }
                other => {
                    self.path_of_macro(&path);
                    path.clear();
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
    }

    /// Enters what an item makes public.
    fn enter_public(&mut self, item: &syn::Item) {
        let is_public = |vis: &syn::Visibility| matches!(vis, syn::Visibility::Public(_));
        let (vis, name) = match item {
            syn::Item::Const(item) => (&item.vis, &item.ident),
            syn::Item::Enum(item) => (&item.vis, &item.ident),
            syn::Item::Fn(item) => (&item.vis, &item.sig.ident),
            syn::Item::Static(item) => (&item.vis, &item.ident),
            syn::Item::Struct(item) => (&item.vis, &item.ident),
            syn::Item::Trait(item) => (&item.vis, &item.ident),
            syn::Item::Type(item) => (&item.vis, &item.ident),
            syn::Item::Impl(item) if item.trait_.is_none() => {
                let syn::Type::Path(of) = &*item.self_ty else { return };
                let Some(of) = of.path.segments.last().map(|segment| segment.ident.to_string()) else {
                    return;
                };
                let methods = item.items.iter().filter_map(|item| match item {
                    syn::ImplItem::Fn(method) if is_public(&method.vis) && !is_test(&method.attrs) => {
                        Some(format!("{of}::{}", method.sig.ident))
                    }
                    syn::ImplItem::Const(constant) if is_public(&constant.vis) => {
                        Some(format!("{of}::{}", constant.ident))
                    }
                    _ => None,
                });
                self.module.public.extend(methods);
                return;
            }
            _ => return,
        };
        if is_public(vis) && self.scope == self.file {
            self.module.public.insert(name.to_string());
        }
    }

    fn path_of_macro(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.path(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attrs = match item {
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attrs) {
            self.enter_public(item);
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.scope.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.scope.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, &[], is_public);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::x)` and `pub(super)` import nothing.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let path: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.path(&path);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        self.tokens(found.tokens.clone());
    }
}
