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
    /// Writes `ca.crt`, and the pair with which the API server signs and knows tokens.
    pub fn new(folder: &Path) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "nightshift test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        let signing = KeyPair::generate().unwrap();
        std::fs::write(folder.join("sa.key"), signing.serialize_pem()).unwrap();
        std::fs::write(folder.join("sa.pub"), signing.public_key_pem()).unwrap();
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

/// A token of the account with this metadata, signed with the plane's own key, that ended an hour ago.
pub fn expired_token(folder: &Path, issuer: &str, account: &serde_json::Value) -> String {
    use base64::Engine;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let (namespace, name) = (account["namespace"].as_str().unwrap(), account["name"].as_str().unwrap());
    let now = jiff::Timestamp::now().as_second();
    let claims = serde_json::json!({
        "iss": issuer, "aud": [issuer], "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "iat": now - 7_200, "nbf": now - 7_200, "exp": now - 3_600,
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": account["uid"] } },
    });
    let head = serde_json::json!({ "alg": "ES256", "typ": "JWT" });
    let text = format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let key = KeyPair::from_pem(&std::fs::read_to_string(folder.join("sa.key")).unwrap()).unwrap();
    let random = ring::rand::SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random).unwrap();
    format!("{text}.{}", encode(pair.sign(&random, text.as_bytes()).unwrap().as_ref()))
}
