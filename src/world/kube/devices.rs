//! NVIDIA's devices on a node, and whether a DRA driver allocates them.
//!
//! Invariant: a cluster that serves no ResourceSlices has no DRA driver; one that does not let us look is no such cluster.

use super::answer::KubeRequest;
use super::{KubeClient, WorldError, escape, segment};
use crate::limits;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl KubeClient {
    /// `nvidia.com/…` in a node's allocatable, with the counts.
    ///
    /// # Errors
    ///
    /// Fails when there is no such node, or the API server is not reached or refuses.
    pub async fn devices(&self, node: &str) -> Result<BTreeMap<String, u32>, WorldError> {
        let path = format!("/api/v1/nodes/{}", segment("node", node)?);
        let object: Value = self.get(KubeRequest::new("get", "", "nodes", node), path).await?;
        let allocatable = object["status"]["allocatable"].as_object();
        let counted = |(name, count): (&String, &Value)| {
            let count = count.as_str().and_then(|text| text.parse().ok()).or_else(|| count.as_u64())?;
            name.starts_with("nvidia.com/").then(|| (name.clone(), u32::try_from(count).unwrap_or(u32::MAX)))
        };
        Ok(allocatable.into_iter().flatten().filter_map(counted).collect())
    }

    /// The DRA drivers that publish devices of a node.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses; a cluster without ResourceSlices has no driver.
    pub async fn dra_drivers(&self, node: &str) -> Result<BTreeSet<String>, WorldError> {
        let filter = escape(&format!("spec.nodeName={}", segment("node", node)?));
        let path =
            format!("/apis/resource.k8s.io/v1/resourceslices?limit={}&fieldSelector={filter}", limits::KUBE_PAGE);
        let asked = KubeRequest::new("list", "resource.k8s.io", "resourceslices", "");
        match self.get::<Value>(asked, path).await {
            Ok(list) => {
                let items = list["items"].as_array().into_iter().flatten();
                Ok(items.filter_map(|slice| slice["spec"]["driver"].as_str().map(str::to_owned)).collect())
            }
            Err(WorldError::NotFound(_)) => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }
}
