//! TokenReview: whose ServiceAccount token is this, and on which node does its pod run?
//!
//! Invariant: a token that the API server does not accept for our audience identifies no one.

use super::answer::KubeRequest;
use super::{KubeClient, WorldError};
use http::Method;
use serde_json::{Value, json};

/// Who a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedToken {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// The node that the token is bound to; empty where the API server returns none.
    pub node: String,
    /// The pod that it is bound to: namespace and name.
    pub pod: Option<(String, String)>,
}

impl KubeClient {
    /// Whether we may do this, by SelfSubjectAccessReview. A resource such as `pods/eviction` names a subresource.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses the review.
    pub async fn may(&self, group: &str, resource: &str, verb: &str) -> Result<bool, WorldError> {
        self.may_within("", group, resource, verb).await
    }

    /// The same in one namespace; an empty one means all.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses the review.
    pub async fn may_within(
        &self,
        namespace: &str,
        group: &str,
        resource: &str,
        verb: &str,
    ) -> Result<bool, WorldError> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = json!({
            "namespace": namespace, "group": group, "resource": resource, "subresource": subresource, "verb": verb,
        });
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned();
        let asked = KubeRequest::new("create", "authorization.k8s.io", "selfsubjectaccessreviews", "");
        let review: Value = self.write(asked, Method::POST, path, &body).await?;
        Ok(review["status"]["allowed"].as_bool().unwrap_or(false))
    }

    /// Reviews a token by TokenReview; none: the token is not valid for the audience.
    ///
    /// # Errors
    ///
    /// Fails when the API server is not reached or refuses the review.
    pub async fn review_token(&self, token: &str, audience: &str) -> Result<Option<ReviewedToken>, WorldError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [audience] },
        });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews".to_owned();
        let asked = KubeRequest::new("create", "authentication.k8s.io", "tokenreviews", "");
        let review: Value = self.write(asked, Method::POST, path, &body).await?;
        Ok(read(&review["status"], audience))
    }
}

fn read(status: &Value, audience: &str) -> Option<ReviewedToken> {
    // A server without audiences accepts a token of any audience.
    let ours = status["audiences"].as_array().is_some_and(|list| list.iter().any(|one| one == audience));
    if status["authenticated"] != json!(true) || !ours {
        return None;
    }
    let user = status["user"]["username"].as_str()?.to_owned();
    let extra = |name: &str| {
        let value = &status["user"]["extra"][format!("authentication.kubernetes.io/{name}")][0];
        value.as_str().unwrap_or_default().to_owned()
    };
    let namespace = user.strip_prefix("system:serviceaccount:")?.split(':').next()?.to_owned();
    let pod = Some(extra("pod-name")).filter(|name| !name.is_empty()).map(|name| (namespace, name));
    Some(ReviewedToken { node: extra("node-name"), pod, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_for_our_audience_names_somebody() {
        let status = |audience: &str, authenticated: bool| {
            json!({
                "authenticated": authenticated,
                "audiences": [audience],
                "user": {
                    "username": "system:serviceaccount:nightshift:agent",
                    "extra": {
                        "authentication.kubernetes.io/node-name": ["gpu-1"],
                        "authentication.kubernetes.io/pod-name": ["agent-x"],
                    },
                },
            })
        };
        let good = read(&status("nightshift", true), "nightshift").unwrap();
        assert_eq!(good.node, "gpu-1");
        assert_eq!(good.pod, Some(("nightshift".to_owned(), "agent-x".to_owned())));
        assert_eq!(read(&status("https://kubernetes.default.svc", true), "nightshift"), None);
        assert_eq!(read(&status("nightshift", false), "nightshift"), None);
        let mut bare = status("nightshift", true);
        bare.as_object_mut().unwrap().remove("audiences");
        assert_eq!(read(&bare, "nightshift"), None);
    }
}
