//! The certificates of one control plane: an authority of its own, the API server's, and one for each who speaks to it.
//!
//! Invariant: a private key is in the plane's folder alone and dies with it.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};

pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Writes `ca.crt`, and `sa.key` with which the API server signs tokens.
    pub fn new(folder: &Path) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "nightshift test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("sa.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        Authority { folder: folder.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// Writes `apiserver.crt` and `.key` for this machine's loopback address.
    pub fn server(&self) {
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
        self.issue("apiserver", CertificateParams::new(names).unwrap(), ExtendedKeyUsagePurpose::ServerAuth);
    }

    /// Writes a client's certificate and a kubeconfig with it; the user is `name`, in `group` if that is not empty.
    pub fn client(&self, url: &str, file: &str, name: &str, group: &str) -> PathBuf {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.issue(file, params, ExtendedKeyUsagePurpose::ClientAuth);
        let at = |ending: &str| self.folder.join(format!("{file}.{ending}"));
        let config = kubeconfig(
            url,
            &self.folder.join("ca.crt"),
            serde_json::json!({ "client-certificate": at("crt"), "client-key": at("key") }),
        );
        std::fs::write(at("kubeconfig"), config).unwrap();
        at("kubeconfig")
    }

    fn issue(&self, file: &str, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.folder.join(format!("{file}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

/// A kubeconfig (JSON is YAML) whose user is given as its file would say it.
pub fn kubeconfig(url: &str, ca: &Path, user: serde_json::Value) -> String {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": url, "certificate-authority": ca } }],
        "users": [{ "name": "test", "user": user }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
    })
    .to_string()
}
