//! Which module of the crate each written path leads to.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Kind, Modules, OUTSIDE, Written, join, parent};

/// Something of one module that another names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The module that names it.
    pub(crate) from: String,
    /// The module that defines it.
    pub(crate) to: String,
    /// The item, unless the module itself is named.
    pub(crate) item: Option<String>,
    /// The path by which another module passes it on, where it is named by that.
    pub(crate) passed_on: Option<String>,
    /// Where it is named.
    pub(crate) place: String,
    pub(crate) is_test: bool,
    pub(crate) is_glob: bool,
    pub(crate) is_re_export: bool,
}

impl Import {
    /// The full path of what is named.
    pub(crate) fn path(&self) -> String {
        self.item.as_ref().map_or_else(|| self.to.clone(), |item| join(&self.to, item))
    }
}

/// A name may be passed on so many times.
const DEPTH: usize = 16;

#[derive(Debug, Clone)]
struct Target {
    module: String,
    item: Option<String>,
    passed_on: Option<String>,
}

impl Target {
    fn new(module: String, item: Option<&str>) -> Self {
        Self { module, item: item.map(str::to_owned), passed_on: None }
    }
}

impl Modules {
    /// All that the modules name of each other.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, module) in &self.by_path {
            for written in &module.written {
                let Some(target) = self.target(from, written) else { continue };
                if target.module == *from {
                    continue;
                }
                imports.push(Import {
                    from: from.clone(),
                    to: target.module,
                    item: target.item,
                    passed_on: target.passed_on,
                    place: format!("src/{}:{}", module.file, written.line),
                    is_test: written.is_test,
                    is_glob: written.kind == Kind::Glob,
                    is_re_export: written.kind == Kind::ReExport,
                });
            }
        }
        imports
    }

    /// The paths in a module that lead out of the crate, in full, with their lines; not those in tests.
    pub(crate) fn foreign(&self, module: &str) -> Vec<(usize, String)> {
        let found = &self.by_path[module];
        let is_foreign = |written: &&Written| self.resolve(module, &written.segments, DEPTH).is_none();
        let paths = found.written.iter().filter(|written| !written.is_test).filter(is_foreign);
        let in_full = paths.map(|written| (written, self.in_full(module, &written.segments)));
        // A name that stands alone, and that no `use` brought in, is a variable or a parameter.
        let in_full = in_full.filter(|(written, path)| written.kind != Kind::Inline || path.len() > 1);
        in_full.map(|(written, path)| (written.line, path.join("::"))).collect()
    }

    /// A path with the names before it that a `use` of the module leaves out.
    fn in_full(&self, module: &str, segments: &[String]) -> Vec<String> {
        let [first, rest @ ..] = segments else { return Vec::new() };
        match self.by_path[module].aliases.get(first) {
            Some(alias) if alias.segments != segments && alias.segments != [first.clone()] => {
                alias.segments.iter().chain(rest).filter(|name| *name != OUTSIDE).cloned().collect()
            }
            _ => segments.iter().filter(|name| *name != OUTSIDE).cloned().collect(),
        }
    }

    fn target(&self, from: &str, written: &Written) -> Option<Target> {
        if let [name] = written.segments.as_slice() {
            // Of names that stand alone, the `use` was counted; not so one that is also passed on to others.
            let is_passed_on =
                || self.by_path[from].aliases.get(name).is_some_and(|alias| alias.kind == Kind::ReExport);
            let is_path = ["crate", "self", "super"].contains(&name.as_str()) || written.kind != Kind::Inline;
            if !is_path && !is_passed_on() {
                return None;
            }
        }
        self.resolve(from, &written.segments, DEPTH)
    }

    /// Where a path in a module leads, if it stays in the crate.
    fn resolve(&self, from: &str, segments: &[String], depth: usize) -> Option<Target> {
        let (first, mut rest) = segments.split_first()?;
        let mut start = match first.as_str() {
            "crate" => Target::new(String::new(), None),
            "self" => Target::new(from.to_owned(), None),
            "super" => Target::new(parent(from).to_owned(), None),
            name => self.name_in(from, name, depth)?,
        };
        while let Some((_, more)) = rest.split_first().filter(|(next, _)| *next == "super") {
            start.module = parent(&start.module).to_owned();
            rest = more;
        }
        self.descend(start, rest, depth)
    }

    fn descend(&self, mut target: Target, rest: &[String], depth: usize) -> Option<Target> {
        for name in rest.iter().take_while(|name| *name != "self") {
            // What follows an item is its own: a variant, a function.
            if target.item.is_some() {
                break;
            }
            // A name that is not there was made by a macro or the build.
            let next = self.name_in(&target.module, name, depth);
            let next = next.unwrap_or_else(|| Target::new(target.module.clone(), Some(name)));
            target = Target { passed_on: target.passed_on.or(next.passed_on.clone()), ..next };
        }
        Some(target)
    }

    /// What a name means in a module: a module below it, an item, or what a `use` brings in.
    fn name_in(&self, module: &str, name: &str, depth: usize) -> Option<Target> {
        let found = self.by_path.get(module)?;
        let child = join(module, name);
        if self.by_path.contains_key(&child) {
            return Some(Target::new(child, None));
        }
        if found.items.contains(name) {
            return Some(Target::new(module.to_owned(), Some(name)));
        }
        if depth == 0 {
            return None;
        }
        if let Some(alias) = found.aliases.get(name) {
            // `use rand;` in a module names the crate, not itself.
            let is_itself = alias.segments.len() == 1 && alias.segments[0] == name;
            let target = if is_itself { None } else { self.resolve(module, &alias.segments, depth - 1) }?;
            let passed_on = Some(join(module, name)).filter(|_| alias.kind == Kind::ReExport);
            return Some(Target { passed_on: passed_on.or(target.passed_on.clone()), ..target });
        }
        let globs = found.written.iter().filter(|written| written.kind == Kind::Glob);
        globs.filter_map(|glob| self.resolve(module, &glob.segments, depth - 1)).find_map(|target| {
            // Of an enum's variants nothing is known here.
            if target.item.is_some() { None } else { self.name_in(&target.module, name, depth - 1) }
        })
    }
}

/// Who needs whom, and a place that shows it.
pub(crate) type Arrows = BTreeMap<String, BTreeMap<String, String>>;

/// The arrows of imports, with both ends renamed; `None` leaves an end out.
pub(crate) fn arrows(imports: &[Import], rename: impl Fn(&str) -> Option<String>) -> Arrows {
    let mut arrows = Arrows::new();
    // A module that passes names on does not need them itself.
    for import in imports.iter().filter(|import| !import.is_test && !import.is_re_export) {
        let (Some(from), Some(to)) = (rename(&import.from), rename(&import.to)) else { continue };
        if from != to {
            let shown = || format!("{} names {}", import.place, import.path());
            arrows.entry(from).or_default().entry(to).or_insert_with(shown);
        }
    }
    arrows
}

fn reached(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(module) = next.pop() {
        for to in arrows.get(&module).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    reached
}

/// The rings: sets of modules each of which needs all the others.
pub(crate) fn rings(arrows: &Arrows) -> BTreeSet<BTreeSet<String>> {
    let all: BTreeMap<&String, BTreeSet<String>> =
        arrows.keys().map(|module| (module, reached(arrows, module))).collect();
    let mut rings = BTreeSet::new();
    for (module, others) in all.iter().filter(|(module, others)| others.contains(**module)) {
        let ring = others.iter().filter(|other| all.get(other).is_some_and(|back| back.contains(*module)));
        rings.insert(ring.cloned().collect());
    }
    rings
}

/// The arrows within a ring, with the places that show them.
pub(crate) fn shown(arrows: &Arrows, ring: &BTreeSet<String>) -> String {
    let mut lines = vec![format!("ring: {}", ring.iter().map(String::as_str).collect::<Vec<_>>().join(", "))];
    for from in ring {
        for (to, place) in arrows.get(from).into_iter().flatten().filter(|(to, _)| ring.contains(*to)) {
            lines.push(format!("  {from} -> {to}: {place}"));
        }
    }
    lines.join("\n")
}
