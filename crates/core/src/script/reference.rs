//! The reference of actions as Markdown, from their declarations.
//!
//! Invariant: the page is generated from the table of actions alone, so it cannot grow old.

use super::arguments::usage;
use super::host::BUILT_IN;
use super::{HostApi, verify};
use crate::model::{ActionSpec, ParamSpec};
use std::fmt::Write;

const OPENING: &str = "\
# Actions

What a runbook can call. This page is generated from the actions themselves.

Required arguments are given by position; optional ones go into a map at the end: `#{within: \"30m\"}`.
A call that fails throws a map with `kind`, `message` and `action`:

```rhai
try { k8s::drain(node); } catch (failure) {
    if failure.kind != \"timeout\" { throw failure; }
}
```

`kind` is one of `not_found`, `conflict`, `forbidden`, `refused`, `unavailable`, `timeout`, `invalid`, `unverified`.
";

pub(super) fn reference(api: &HostApi) -> String {
    let mut specs: Vec<&ActionSpec> = api.specs.iter().copied().filter(|spec| !BUILT_IN.contains(&spec.name)).collect();
    specs.sort_by_key(|spec| (spec.name.contains("::"), spec.name));
    let mut page = OPENING.to_owned();
    built_in(&mut page);
    for spec in specs {
        section(&mut page, spec);
    }
    page
}

fn built_in(page: &mut String) {
    page.push_str(
        "\n## `stop(reason)`\n\nEnds the runbook here, on purpose. No step of its own; `catch` cannot hold it.\n",
    );
    page.push_str("\n## `verify(condition, #{hold, within, every})`\n\n");
    page.push_str(
        "Waits until the condition, a closure such as `|| prom::value(\"up\") == 1.0`, is true and stays true; \
                   throws `unverified` when the time is up.\nA read that fails counts as not true. \
                   Its steps are those of the condition, `now` and `sleep`.\n\n",
    );
    page.push_str("| option | type | meaning |\n|---|---|---|\n");
    for (name, doc) in verify::OPTIONS {
        line(page, format_args!("| `{name}` | Duration | {doc} |"));
    }
}

fn section(page: &mut String, spec: &ActionSpec) {
    line(page, format_args!("\n## `{}`\n\n{}\n", usage(spec), spec.doc));
    if !spec.params.is_empty() {
        table(page, "parameter", spec.params);
    }
    if !spec.options.is_empty() {
        table(page, "option", spec.options);
    }
    line(page, format_args!("- Gives: {}", spec.returns));
    let disruptive = if spec.disruptive { ", takes serving capacity away" } else { "" };
    line(
        page,
        format_args!("- Effect: {}. Scope: {}{disruptive}. Deadline: {}.", spec.effect, spec.reach, spec.deadline),
    );
    if let Some(undo) = spec.undo {
        line(page, format_args!("- Undone by: `{undo}`"));
    }
    if !spec.permissions.is_empty() {
        let rights: Vec<String> = spec
            .permissions
            .iter()
            .map(|right| {
                let dot = if right.group.is_empty() { "" } else { "." };
                format!("`{} {}{dot}{}`", right.verb, right.resource, right.group)
            })
            .collect();
        line(page, format_args!("- Needs: {}", rights.join(", ")));
    }
}

fn table(page: &mut String, what: &str, rows: &[ParamSpec]) {
    line(page, format_args!("| {what} | type | | meaning |\n|---|---|---|---|"));
    for row in rows {
        let required = if row.required { "required" } else { "optional" };
        line(
            page,
            format_args!("| `{}` | {} | {required} | {} |", row.name, row.ty.name(), row.doc.replace('|', "\\|")),
        );
    }
    page.push('\n');
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to a String cannot fail");
}
