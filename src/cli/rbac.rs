//! `nightshift rbac`: the roles that an installation needs, made from the actions that are on.
//!
//! Invariant: a right is here because an action or the engine declares it, and it says which one.

use super::invocation::Invocation;
use super::stop::CliError;
use crate::actions;
use crate::catalog::{Catalog, CatalogSnapshot};
use crate::cli::serve;
use crate::config::Config;
use crate::limits;
use crate::model::{ActionSpec, KubePermission};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

#[derive(clap::Args)]
pub(super) struct RbacArgs {
    /// Only the actions that loaded runbooks call, instead of all enabled actions
    #[arg(long)]
    used: bool,
    /// Name of the roles: NAME-read and NAME-write
    #[arg(long, default_value = "nightshift")]
    name: String,
}

/// Each right, and who needs it.
pub(super) type RequiredRights = BTreeMap<KubePermission, Vec<&'static str>>;

pub(super) fn run(args: &RbacArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (config, _) = invocation.config()?;
    let jobs = config.clusters.values().filter_map(|cluster| cluster.cache_job.as_ref());
    let job_namespaces: BTreeSet<String> = jobs.map(|job| job.namespace.clone()).collect();
    let rights = if args.used { used(config.clone())? } else { needed(&config, None) };
    if invocation.json() {
        return invocation.print_json(&as_json(&rights));
    }
    let (mut read, mut write) = (rights.clone(), rights);
    let mut home = read.clone();
    read.retain(|right, _| !right.writes() && !right.home());
    write.retain(|right, _| right.writes() && !right.home());
    home.retain(|right, _| right.home());
    let head = format!(
        "# Rights of the enabled actions in the Kubernetes API, from the catalog of nightshift {}.\n\
         # An engine that observes or suggests needs the first role; one that acts needs all.\n\
         # RBAC cannot limit which part of an object a patch changes. With these roles alone, this account can put any image\n\
         # into any workload, and so become cluster-admin. The Helm chart's admission policies limit it to the lines under\n\
         # `limited to`; without Helm in the cluster: helm template … --show-only 'templates/admission*.yaml'\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut roles = vec![role(&args.name, "read", None, &read), role(&args.name, "write", None, &write)];
    if !home.is_empty() {
        roles.extend(job_namespaces.iter().map(|space| role(&args.name, "jobs", Some(space), &home)));
    }
    let leases: BTreeSet<String> = config.clusters.values().filter_map(|cluster| cluster.lease_namespace()).collect();
    roles.extend(leases.iter().map(|space| role(&args.name, "lease", Some(space), &lease())));
    invocation.print(&format!("{head}{}", roles.join("---\n")))
}

/// The rights of the actions that are on; with `loaded`, only of those that a runbook calls, or that undo a called one.
pub(super) fn needed(config: &Config, loaded: Option<&CatalogSnapshot>) -> RequiredRights {
    let called: Option<Vec<&ActionSpec>> =
        loaded.map(|loaded| loaded.runbooks.values().flat_map(|runbook| runbook.actions()).collect());
    let jobs = config.clusters.values().any(|cluster| cluster.cache_job.is_some());
    let mut rights = actions::rights(|spec| {
        let is_called = |called: &Vec<&ActionSpec>| {
            called.iter().any(|other| other.name == spec.name || other.undo == Some(spec.name))
        };
        config.actions.lets(spec.name) && called.as_ref().is_none_or(is_called)
    });
    // Where no Job may be made, no right to make one is needed.
    rights.retain(|right, _| jobs || !right.home());
    rights
}

/// The engine's rights in the one namespace of its Lease.
fn lease() -> RequiredRights {
    let verbs = ["create", "get", "update"];
    let right = |verb| KubePermission::new("coordination.k8s.io", "leases", verb);
    verbs.into_iter().map(|verb| (right(verb), vec!["one engine of an installation acts on a cluster"])).collect()
}

fn used(config: Config) -> Result<RequiredRights, CliError> {
    let loaded = std::thread::Builder::new()
        .stack_size(limits::SCRIPT_STACK_BYTES)
        .spawn(move || {
            Catalog::load(serve::folders(&config)).map(|(catalog, _)| needed(&config, Some(&catalog.current())))
        })
        .map_err(|error| CliError::failure(format!("cannot start a thread: {error}"), ""))?
        .join()
        .map_err(|_| CliError::failure("loading the runbooks failed", "report this"))?;
    loaded.map_err(|_| CliError::failure("the runbooks cannot be loaded", "see `nightshift check`"))
}

/// The limit of the chart's admission policies on a right to write; `None`: they do not limit it.
fn limited_to(group: &str, resource: &str) -> Option<&'static str> {
    Some(match (group, resource) {
        ("", "nodes") => {
            "cordon; taints, labels and annotations of nightshift.dev/ and admissionPolicy.extraKeys; NoExecute: extraKeys alone"
        }
        ("", "nodes/status") => "the condition NightshiftRemediation",
        ("", "pods") => "the label nightshift.dev/traffic; deletion outside protected namespaces",
        ("", "pods/eviction") => "pods outside protected namespaces",
        ("apps", "deployments" | "statefulsets") => "the annotations that mark a restart, outside protected namespaces",
        ("apps", "deployments/scale" | "statefulsets/scale") => "workloads outside protected namespaces",
        ("batch", "jobs") => "the Job of cache::warm: its image, its one volume of models, no token",
        ("coordination.k8s.io", "leases") => "the Lease of this installation",
        _ => return None,
    })
}

fn as_json(rights: &RequiredRights) -> Value {
    let right = |(right, by): (&KubePermission, &Vec<&str>)| {
        let limit = limited_to(right.group, right.resource).filter(|_| right.writes());
        json!({
            "group": right.group, "resource": right.resource, "verb": right.verb, "write": right.writes(), "by": by,
            "limited_to": limit,
        })
    };
    json!({ "rights": rights.iter().map(right).collect::<Vec<_>>() })
}

/// One rule of a role.
#[derive(Default)]
struct RbacRule<'a> {
    verbs: Vec<&'a str>,
    by: BTreeSet<&'a str>,
}

/// A ClusterRole, or a Role in a namespace, with one rule a resource, each under the names of those who need it.
fn role(name: &str, part: &str, namespace: Option<&str>, rights: &RequiredRights) -> String {
    let mut rules: BTreeMap<(&str, &str), RbacRule<'_>> = BTreeMap::new();
    for (right, by) in rights {
        let rule = rules.entry((right.group, right.resource)).or_default();
        rule.verbs.push(right.verb);
        rule.by.extend(by);
    }
    let none = if rules.is_empty() { " []" } else { "" };
    let (kind, place) = match namespace {
        Some(space) => ("Role", format!("\n  namespace: {space}")),
        None => ("ClusterRole", String::new()),
    };
    let mut text = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}-{part}{place}\nrules:{none}\n"
    );
    for ((group, resource), RbacRule { verbs, by }) in rules {
        let by: Vec<&str> = by.into_iter().collect();
        let _ = writeln!(text, "  # {}", by.join(", "));
        if let Some(limit) = limited_to(group, resource).filter(|_| part != "read") {
            let _ = writeln!(text, "  # limited to: {limit}");
        }
        let verbs = verbs.join(", ");
        let _ = writeln!(text, "  - {{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [{verbs}]}}");
    }
    text
}
