//! Functions of at most 60 lines, files of at most 500; tests do not count. What has to be larger is
//! listed in `sizes.allow` with a reason.

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::{spanned::Spanned, visit::Visit};

const FUNCTION: usize = 60;
const FILE: usize = 500;
const ALLOW: &str = "sizes.allow";

pub(crate) fn check() -> Result<(), String> {
    let root = crate::root();
    let allowed = fs::read_to_string(root.join(ALLOW)).unwrap_or_default();
    let is_allowed = |what: &str| {
        allowed.lines().any(|line| line.split(" # ").next().is_some_and(|name| name.trim() == what))
    };
    let mut too_large = Vec::new();
    for file in sources(&root) {
        let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        for (what, lines, limit) in measure(&file, &name)? {
            if lines > limit && !is_allowed(&what) {
                too_large.push(format!("{what}: {lines} lines, of {limit}"));
            }
        }
    }
    if too_large.is_empty() { Ok(()) } else { Err(format!("\n  {}", too_large.join("\n  "))) }
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["crates", "xtask"].map(|name| root.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !is_test {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The sizes of a file and of its functions: what it is, its lines, and the limit.
fn measure(file: &Path, name: &str) -> Result<Vec<(String, usize, usize)>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let tree = syn::parse_file(&text).map_err(|error| format!("{name}: {error}"))?;
    let mut functions = Functions { name, tests: 0, found: Vec::new() };
    functions.visit_file(&tree);
    let lines = text.lines().count() - functions.tests;
    functions.found.push((name.to_owned(), lines, FILE));
    Ok(functions.found)
}

struct Functions<'a> {
    name: &'a str,
    /// Lines of test modules.
    tests: usize,
    found: Vec<(String, usize, usize)>,
}

impl Functions<'_> {
    fn note(&mut self, function: &syn::Ident, whole: &impl Spanned) {
        let span = whole.span();
        let lines = span.end().line - span.start().line + 1;
        self.found.push((format!("{}::{function}", self.name), lines, FUNCTION));
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().contains("test")
        }
        _ => false,
    })
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if is_test(&module.attrs) {
            let span = module.span();
            self.tests += span.end().line - span.start().line + 1;
            return;
        }
        syn::visit::visit_item_mod(self, module);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.note(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}
