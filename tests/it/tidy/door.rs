//! The one door to a cluster: the code that may change what runs there, and what is written beside that door.
//!
//! Invariant: a new write to a cluster or to a source is one line here with its reason, or the test fails.

use super::{is_test_file, parsed, root, short, sources};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

/// Writes that change what a cluster runs. Only actions call them, in `perform`, after a committed record.
const ACTS: [&str; 8] =
    ["patch_node", "evict", "delete_pod", "patch_workload", "scale", "create_job", "delete_job", "patch_pod"];

/// A write that is not an act: no run, no guard and no step stand behind it.
struct Beside {
    call: &'static str,
    /// The one file that may call it.
    from: &'static str,
    /// Why that is harmless without guards.
    because: &'static str,
}

const BESIDE: [Beside; 6] = [
    Beside {
        call: "set_condition",
        from: "src/engine/clusters/beside.rs",
        because: "shows others that a run holds the node; no code of ours decides by it",
    },
    Beside {
        call: "write_event",
        from: "src/engine/clusters/beside.rs",
        because: "the timeline for `kubectl get events`; no code of ours decides by it",
    },
    Beside {
        call: "keep_engine_lease",
        from: "src/engine/lease.rs",
        because: "proves that one engine acts; without it no act is allowed at all",
    },
    Beside {
        call: "may_within",
        from: "src/cli/doctor",
        because: "a question about our own rights; nothing is stored",
    },
    Beside {
        call: "review_token",
        from: "src/server/agents/who.rs",
        because: "a question about a token; nothing is stored",
    },
    Beside {
        call: "create_silence",
        from: "src/engine/silences.rs",
        because: "a user's own request, recorded before it is sent; it quiets messages, and is no act on a machine",
    },
];

#[derive(Default)]
struct Function {
    calls: BTreeSet<String>,
    writes: bool,
    is_public: bool,
}

/// The functions of a file: their calls, and whether they name a method of HTTP that writes.
#[derive(Default)]
struct Functions {
    found: BTreeMap<String, Function>,
    within: Vec<String>,
}

impl Functions {
    fn here(&mut self) -> Option<&mut Function> {
        self.found.get_mut(self.within.last()?)
    }

    fn enter(&mut self, name: &syn::Ident, visibility: &syn::Visibility) {
        self.within.push(name.to_string());
        let function = self.found.entry(name.to_string()).or_default();
        function.is_public |= matches!(visibility, syn::Visibility::Public(_));
    }
}

impl<'f> Visit<'f> for Functions {
    fn visit_item(&mut self, item: &'f syn::Item) {
        if !parsed::is_for_tests(parsed::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &'f syn::ItemFn) {
        self.enter(&function.sig.ident, &function.vis);
        visit::visit_item_fn(self, function);
        self.within.pop();
    }

    fn visit_impl_item_fn(&mut self, function: &'f syn::ImplItemFn) {
        self.enter(&function.sig.ident, &function.vis);
        visit::visit_impl_item_fn(self, function);
        self.within.pop();
    }

    fn visit_expr_method_call(&mut self, call: &'f syn::ExprMethodCall) {
        let name = call.method.to_string();
        if let Some(function) = self.here() {
            function.calls.insert(name);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'f syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        let last = parts.last().cloned().unwrap_or_default();
        let writes = parts.iter().rev().nth(1).is_some_and(|of| of == "Method")
            && ["POST", "PUT", "PATCH", "DELETE"].contains(&last.as_str());
        if let Some(function) = self.here() {
            function.writes |= writes;
            function.calls.insert(last);
        }
        visit::visit_path(self, path);
    }
}

fn functions(path: &std::path::Path) -> Functions {
    let mut functions = Functions::default();
    functions.visit_file(&parsed::parse(path));
    functions
}

#[test]
fn every_write_to_a_cluster_is_an_act_or_is_named_with_its_reason() {
    let mut writers: BTreeMap<String, Function> = BTreeMap::new();
    for path in sources().into_iter().filter(|path| short(path).starts_with("src/world/kube")) {
        for (name, function) in functions(&path).found {
            let known = writers.entry(name).or_default();
            known.calls.extend(function.calls);
            known.writes |= function.writes;
            known.is_public |= function.is_public;
        }
    }
    // A public function writes by itself, or by a private one that does.
    let private: BTreeSet<String> =
        writers.iter().filter(|(_, one)| one.writes && !one.is_public).map(|(name, _)| name.clone()).collect();
    let found: BTreeSet<&str> = writers
        .iter()
        .filter(|(_, one)| one.is_public && (one.writes || one.calls.intersection(&private).next().is_some()))
        .map(|(name, _)| name.as_str())
        .collect();
    let listed: BTreeSet<&str> = ACTS.into_iter().chain(BESIDE.iter().map(|one| one.call)).collect();
    let unknown: Vec<&&str> = found.difference(&listed).collect();
    assert!(unknown.is_empty(), "{unknown:?} write to a cluster and are in no list of {}", file!());
    let gone: Vec<&&str> = listed.difference(&found).filter(|name| **name != "create_silence").collect();
    assert!(gone.is_empty(), "{gone:?} write to no cluster: take them out of {}", file!());
}

#[test]
fn acts_are_called_by_actions_alone_and_the_rest_from_one_file_each() {
    let mut broken = Vec::new();
    let mut used = BTreeSet::new();
    // The other crates know no cluster; the simulated one is theirs.
    let program = |path: &std::path::PathBuf| !is_test_file(path) && short(path).starts_with("src/");
    for path in sources().into_iter().filter(program) {
        let (file, functions) = (short(&path), functions(&path));
        // A method of the same name on another type, and the function itself.
        let own: BTreeSet<&String> = functions.found.keys().collect();
        for call in functions.found.values().flat_map(|one| &one.calls).filter(|call| !own.contains(call)) {
            if ACTS.contains(&call.as_str()) && !file.starts_with("src/actions/") && !file.starts_with("src/world/") {
                broken.push(format!("{file}: `{call}` is called outside of an action"));
            }
            for beside in BESIDE.iter().filter(|one| one.call == *call) {
                used.insert(beside.call);
                if !file.starts_with(beside.from) && !file.starts_with("src/world/") {
                    let (from, because) = (beside.from, beside.because);
                    broken.push(format!("{file}: `{call}` belongs to {from} alone ({because})"));
                }
            }
        }
    }
    super::refuse(broken);
    for beside in &BESIDE {
        assert!(used.contains(beside.call), "nobody calls {}: take it out of {}", beside.call, file!());
        assert!(root().join(beside.from).exists(), "{} does not exist", beside.from);
    }
}
