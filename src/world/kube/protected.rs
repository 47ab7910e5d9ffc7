//! Namespaces whose pods stay: those of Kubernetes itself, and those of `guards.protected.namespaces`.
//!
//! Invariant: the list is set once, at start, and holds for every clone of the client; the chart's admission policy
//! `NAME-protected` has the same list.

use super::KubeClient;

/// The namespaces of Kubernetes itself, protected whatever the configuration lists.
const OF_KUBERNETES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// Whether a namespace belongs to Kubernetes itself.
pub(in crate::world) fn belongs_to_kubernetes(namespace: &str) -> bool {
    OF_KUBERNETES.contains(&namespace)
}

impl KubeClient {
    /// Protects the namespaces of `guards.protected.namespaces`. A second call changes nothing.
    pub fn protect(&self, namespaces: Vec<String>) {
        let _ = self.protected.set(namespaces);
    }

    /// Whether pods of this namespace stay where they are, whatever is done to their node.
    pub fn protects(&self, namespace: &str) -> bool {
        let listed = self.protected.get().is_some_and(|list| list.iter().any(|one| one == namespace));
        listed || belongs_to_kubernetes(namespace)
    }
}
