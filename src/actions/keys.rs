//! Keys and values of labels, annotations and taints: those that Kubernetes accepts, and those that a runbook may set.
//!
//! Invariant: a key of Kubernetes itself, or one that carries our own ownership, is never a runbook's to change.

use super::args::invalid;
use crate::limits;
use crate::model::{FailureKind, StepFailure};
use crate::world::{CORDONED_BY, OPT_OUT};

/// A key that a runbook may write.
pub(super) fn check_key(key: &str) -> Result<(), StepFailure> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !is_name(name) || prefix.is_some_and(|prefix| !is_domain(prefix)) {
        let shown: String = key.chars().take(80).collect();
        return Err(invalid(format!("{shown:?} is no key: write `domain/name`, as in `nightshift.dev/quarantine`")));
    }
    let of = |domain: &str| prefix.is_some_and(|p| p == domain || p.ends_with(&format!(".{domain}")));
    if of("kubernetes.io") || of("k8s.io") {
        return Err(StepFailure::new(
            FailureKind::Refused,
            format!("`{key}` belongs to Kubernetes; a runbook may not change it"),
        ));
    }
    if key == CORDONED_BY || key == OPT_OUT {
        return Err(StepFailure::new(
            FailureKind::Refused,
            format!("`{key}` is reserved for operators and Nightshift; a runbook may not change it"),
        ));
    }
    Ok(())
}

/// The value of a label or taint: empty, or like a name.
pub(super) fn check_label_value(value: &str) -> Result<(), StepFailure> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    let shown: String = value.chars().take(80).collect();
    Err(invalid(format!("{shown:?} is not a label or taint value: use at most 63 letters, digits, `-`, `_` and `.`")))
}

pub(super) fn check_annotation_value(value: &str) -> Result<(), StepFailure> {
    if value.len() <= limits::LABEL_VALUE_BYTES {
        return Ok(());
    }
    Err(invalid(format!("the annotation has {} bytes, more than {}", value.len(), limits::LABEL_VALUE_BYTES)))
}

fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_kubernetes_and_of_our_own_agreements_are_refused() {
        for good in ["nightshift.dev/quarantine", "nvidia.com/mig.config", "pool", "my-kubernetes.io.example/x"] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        for refused in [
            "node.kubernetes.io/unschedulable",
            "kubernetes.io/hostname",
            "node-role.kubernetes.io/worker",
            "x.k8s.io/y",
            CORDONED_BY,
            OPT_OUT,
        ] {
            assert_eq!(check_key(refused).unwrap_err().kind, FailureKind::Refused, "{refused}");
        }
        for bad in ["", "/", "a/", "/a", "a/b/c", "Ünï", "a b", "-a", "a-", "A.example/x", "a..b/x", &"x".repeat(64)]
        {
            assert_eq!(check_key(bad).unwrap_err().kind, FailureKind::Invalid, "{bad}");
        }
        assert!(check_label_value("").is_ok() && check_label_value("a.b_c-1").is_ok());
        assert!(check_label_value("a b").is_err() && check_label_value("{{x}}").is_err());
    }
}
