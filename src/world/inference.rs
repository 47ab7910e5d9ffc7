//! Inference engines: where they are, by the configuration or by a pod's labels, and one look at one of them.
//!
//! Invariant: a look takes no longer than its own time and reads no more than its bound; whatever answers is data.

use super::http::{HttpClient, HttpRequest};
use super::{Pod, World, WorldError};
use crate::limits;
use crate::model::Span;
pub use crate::policy::{
    EngineKind, EngineLimits, EngineLook, EngineReadError, EngineSignal, SignalGroup, engine_signals,
};
use crate::policy::{EngineReading, parse_engine_page};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use url::Url;

/// The label that marks a pod as an engine, with its kind; `nightshift.dev/probe: vllm`.
pub const PROBE_LABEL: &str = "nightshift.dev/probe";
/// The ports of its API and of its metrics, where they are not the usual ones.
pub const PROBE_PORT: &str = "nightshift.dev/probe-port";
/// The label of a pod whose metrics are on another port.
pub const METRICS_PORT: &str = "nightshift.dev/metrics-port";

/// The mark of a pod that gets no requests, since we took its traffic away: `<install> <run> <label>=<value before>`.
/// It is not in service, however ready it is.
pub const TRAFFIC_TAKEN_BY: &str = "nightshift.dev/traffic-taken-by";

/// The engines that a source of kind `inference` probes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// Polling interval of one engine.
    pub every: Span,
    /// How long one answer may take.
    pub within: Span,
    /// Timeout of a request for one token, sent by runbooks with `ask`.
    pub ask_within: Span,
    /// Also pods with the label `nightshift.dev/probe` of the source's cluster, where there is one.
    pub pods: bool,
    /// Engines by address.
    pub targets: Vec<EngineTarget>,
    /// Which readings are alerts.
    pub limits: EngineLimits,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig {
            every: limits::PROBE_EVERY,
            within: limits::PROBE_WITHIN,
            ask_within: limits::PROBE_ASK_WITHIN,
            pods: true,
            targets: Vec::new(),
            limits: EngineLimits::default(),
        }
    }
}

/// One engine, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EngineTarget {
    /// Its API: `http://10.0.3.7:8000`.
    pub url: String,
    /// Which program serves the model.
    pub engine: EngineKind,
    /// Its metrics page, where it is not at the usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// The served name of its model.
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// Its namespace.
    pub namespace: Option<String>,
    /// A Deployment or StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// Its pod.
    pub pod: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// Its node.
    pub node: Option<String>,
    /// Its container of the Docker engine of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl EngineTarget {
    /// The addresses of the configured engine.
    ///
    /// # Errors
    ///
    /// Fails when `url` or `metrics` is no address; the message quotes it.
    pub fn point(&self) -> Result<EnginePoint, String> {
        let url = address(&self.url)?;
        let metrics = match &self.metrics {
            Some(metrics) => address(metrics)?,
            None => usual_metrics(&url, self.engine),
        };
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Ok(EnginePoint {
            endpoint: place(&url),
            kind: self.engine,
            ready: at(&url, self.engine.ready_path()),
            metrics: metrics.to_string(),
            model: text(&self.model),
            namespace: text(&self.namespace),
            workload: text(&self.workload),
            pod: text(&self.pod),
            node: text(&self.node),
            container: text(&self.container),
        })
    }
}

/// One engine that can be looked at. Parts that are not known are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePoint {
    /// Host and port of its API.
    pub endpoint: String,
    pub kind: EngineKind,
    pub ready: String,
    pub metrics: String,
    pub model: String,
    pub namespace: String,
    pub workload: String,
    pub pod: String,
    pub node: String,
    pub container: String,
}

impl EnginePoint {
    /// For users: the pod, else where it is.
    pub fn name(&self) -> String {
        if self.pod.is_empty() { self.endpoint.clone() } else { format!("{}/{}", self.namespace, self.pod) }
    }

    /// The engine in a pod, if its labels name one. A pod that does not run, ends or has no address has none yet.
    ///
    /// # Errors
    ///
    /// The inner result fails when a label of the pod cannot be read; the message names it.
    pub fn of_pod(pod: &Pod) -> Option<Result<EnginePoint, String>> {
        let word = pod.labels.get(PROBE_LABEL)?;
        if pod.ip.is_empty() || pod.terminating || pod.phase != "Running" {
            return None;
        }
        Some(labelled(pod, word))
    }
}

fn labelled(pod: &Pod, word: &str) -> Result<EnginePoint, String> {
    let kind = EngineKind::named(word)
        .ok_or_else(|| format!("its label {PROBE_LABEL} is `{}`; write vllm, tgi or triton", word.escape_debug()))?;
    let port = |label: &str, usual: u16| match pod.labels.get(label) {
        None => Ok(usual),
        Some(text) => {
            text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("its label {label} is `{text}`, no port"))
        }
    };
    let (api, metrics) = kind.ports();
    let api = port(PROBE_PORT, api)?;
    // Two engines of three have one port for both.
    let metrics = port(METRICS_PORT, if kind == EngineKind::Triton { metrics } else { api })?;
    // A writer of a pod's status must not direct a probe to the cloud's metadata service.
    let ip: IpAddr = pod.ip.parse().map_err(|_| format!("its address `{}` is invalid", pod.ip.escape_debug()))?;
    if let Some(why) = super::http::out_of_bounds(ip) {
        return Err(format!("its address {ip} is {why}"));
    }
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    Ok(EnginePoint {
        endpoint: format!("{host}:{api}"),
        kind,
        ready: format!("http://{host}:{api}{}", kind.ready_path()),
        metrics: format!("http://{host}:{metrics}/metrics"),
        model: pod.labels.get("model").cloned().unwrap_or_default(),
        namespace: pod.namespace.clone(),
        workload: pod.workload(),
        pod: pod.name.clone(),
        node: pod.node.clone(),
        container: String::new(),
    })
}

/// The engines that the configuration names, for actions about a pod or a workload, and how each is looked at.
#[derive(Debug, Clone, Default)]
pub struct ProbedEngines(Arc<Vec<ProbedSource>>);

/// One source that looks at engines.
#[derive(Debug)]
struct ProbedSource {
    points: Vec<EnginePoint>,
    /// The cluster whose pods it finds; none: no pods. An empty name is any cluster.
    cluster: Option<String>,
    /// Empty: all.
    namespaces: Vec<String>,
    manner: EngineManner,
}

/// The limits and paths by which an engine is probed, and the values above which its readings are faults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineManner {
    pub within: Span,
    pub ask_within: Span,
    pub limits: EngineLimits,
}

impl EngineManner {
    fn of(probe: &ProbeConfig) -> EngineManner {
        EngineManner { within: probe.within, ask_within: probe.ask_within, limits: probe.limits.clone() }
    }
}

impl ProbedEngines {
    /// Those engines of these sources that are valid; others are refused where the configuration is checked.
    pub fn of<'a>(probes: impl IntoIterator<Item = &'a ProbeConfig>) -> ProbedEngines {
        ProbedEngines::seen_by(probes.into_iter().map(|probe| (probe, "", &[][..])))
    }

    /// The same, with the cluster and the namespaces in which each source finds pods.
    pub fn seen_by<'a>(sources: impl IntoIterator<Item = (&'a ProbeConfig, &'a str, &'a [String])>) -> ProbedEngines {
        let probed = sources.into_iter().map(|(probe, cluster, namespaces)| ProbedSource {
            points: probe.targets.iter().filter_map(|target| target.point().ok()).collect(),
            cluster: probe.pods.then(|| cluster.to_owned()),
            namespaces: namespaces.to_vec(),
            manner: EngineManner::of(probe),
        });
        ProbedEngines(Arc::new(probed.collect()))
    }

    /// The configured engine of this pod.
    pub fn of_pod(&self, namespace: &str, pod: &str) -> Option<&EnginePoint> {
        self.named().find(|point| point.namespace == namespace && point.pod == pod)
    }

    /// The configured engines of this workload.
    pub fn of_workload<'a>(&'a self, namespace: &'a str, workload: &'a str) -> impl Iterator<Item = &'a EnginePoint> {
        self.named().filter(move |point| point.namespace == namespace && point.workload == workload)
    }

    fn named(&self) -> impl Iterator<Item = &EnginePoint> {
        self.0.iter().flat_map(|probed| &probed.points)
    }

    /// The source that names this engine, else one that finds its pod in this cluster.
    fn probed(&self, cluster: &str, point: &EnginePoint) -> Option<&ProbedSource> {
        let names = |probed: &&ProbedSource| probed.points.contains(point);
        let finds = |probed: &&ProbedSource| {
            let here = probed.cluster.as_deref().is_some_and(|own| own.is_empty() || own == cluster);
            here && (probed.namespaces.is_empty() || probed.namespaces.contains(&point.namespace))
        };
        self.0.iter().find(names).or_else(|| self.0.iter().find(|probed| !point.pod.is_empty() && finds(probed)))
    }
}

impl World {
    /// How the source looks at this engine that watches it; as any source would where none does.
    pub fn engine_manner(&self, point: &EnginePoint) -> EngineManner {
        let probed = self.engines.probed(&self.default_cluster, point);
        probed.map_or_else(|| EngineManner::of(&ProbeConfig::default()), |probed| probed.manner.clone())
    }

    /// Reads an engine's readiness and its metrics, both at once.
    pub async fn look_at(&self, point: &EnginePoint, within: Span) -> EngineLook {
        let (unready, page) = tokio::join!(readiness(&self.http, point, within), metrics(&self.http, point, within));
        EngineLook { at: self.clock.now(), unready, page }
    }
}

/// The result of a request of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenProbeResult {
    Answered,
    /// No answer in time.
    Silent(String),
    /// It was not taken, so that it is no evidence about the engine's work.
    Refused(String),
}

impl World {
    /// Sends a request of one token: the only question which exercises the whole engine.
    pub async fn ask_for_a_token(&self, point: &EnginePoint, look: &EngineLook, within: Span) -> TokenProbeResult {
        let served = look.reading().and_then(|reading| reading.lanes.keys().find_map(|lane| lane.split('/').next()));
        let model = if point.model.is_empty() { served.unwrap_or_default() } else { &point.model };
        let (path, body) = match point.kind {
            EngineKind::Vllm if model.is_empty() => {
                return TokenProbeResult::Refused("its model is not known".to_owned());
            }
            EngineKind::Vllm => ("/v1/completions", json!({ "model": model, "prompt": "ping", "max_tokens": 1 })),
            EngineKind::Tgi => ("/generate", json!({ "inputs": "ping", "parameters": { "max_new_tokens": 1 } })),
            EngineKind::Triton => return TokenProbeResult::Refused("no request fits every model of Triton".to_owned()),
        };
        // A target's address was read before, or there would be no point.
        let url = Url::parse(&point.ready).map_or_else(|_| point.ready.clone(), |url| at(&url, path));
        let request = HttpRequest { method: "POST".to_owned(), url, body, ..HttpRequest::default() };
        let Ok(answered) = tokio::time::timeout(within.0, self.http.send(&request)).await else {
            return TokenProbeResult::Silent(format!("no answer within {within}"));
        };
        match answered {
            Ok(answer) if answer.status == 200 => TokenProbeResult::Answered,
            Ok(answer) => {
                TokenProbeResult::Refused(format!("it answers {}{}", answer.status, words(answer.body.as_bytes())))
            }
            Err(error @ WorldError::Unavailable(_)) => TokenProbeResult::Silent(short(&error.to_string())),
            Err(error) => TokenProbeResult::Refused(short(&error.to_string())),
        }
    }
}

async fn readiness(http: &HttpClient, point: &EnginePoint, within: Span) -> Option<String> {
    match http.page(&point.ready, within.0, limits::HTTP_BODY_BYTES).await {
        Ok((200, _)) => None,
        Ok((status, body)) => Some(format!("it answers {status}{}", words(&body))),
        Err(error) => Some(short(&error.to_string())),
    }
}

async fn metrics(
    http: &HttpClient,
    point: &EnginePoint,
    within: Span,
) -> Result<EngineReading, (EngineReadError, String)> {
    match http.page(&point.metrics, within.0, limits::ENGINE_PAGE_BYTES).await {
        Ok((200, body)) => {
            let model = Some(point.model.as_str()).filter(|model| !model.is_empty());
            let page = String::from_utf8_lossy(&body);
            parse_engine_page(point.kind, &page, model).map_err(|why| (EngineReadError::Garbage, short(&why)))
        }
        Ok((status, body)) => Err((EngineReadError::Status, format!("it answers {status}{}", words(&body)))),
        Err(error) => Err((kind(&error), short(&error.to_string()))),
    }
}

fn kind(error: &WorldError) -> EngineReadError {
    match error {
        WorldError::Unreached(_) => EngineReadError::Unreached,
        WorldError::Invalid(_) => EngineReadError::TooLarge,
        _ => EngineReadError::Silent,
    }
}

/// The body of an engine's answer, on one line.
fn words(body: &[u8]) -> String {
    let text = short(String::from_utf8_lossy(body).trim());
    if text.is_empty() { text } else { format!(": {text}") }
}

fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limits::PROBE_WORDS).collect()
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("`{}` is not an HTTP address", text.escape_debug()))
}

fn usual_metrics(url: &Url, kind: EngineKind) -> Url {
    let mut metrics = url.clone();
    metrics.set_path("/metrics");
    if kind == EngineKind::Triton {
        // Only an address without a host has no port to set.
        let _ = metrics.set_port(Some(kind.ports().1));
    }
    metrics
}

fn at(url: &Url, path: &str) -> String {
    let mut url = url.clone();
    url.set_path(path);
    url.to_string()
}

fn place(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(labels: &[(&str, &str)], ip: &str) -> Pod {
        Pod {
            namespace: "inference".to_owned(),
            name: "llama-7c9-x2x".to_owned(),
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            node: "gpu-1".to_owned(),
            ip: ip.to_owned(),
            phase: "Running".to_owned(),
            ready: true,
            terminating: false,
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            marks: [].into(),
            owner: Some(("ReplicaSet".to_owned(), "llama-7c9".to_owned())),
            priority: 0,
            mirror: false,
            empty_dir: false,
            gpus: 1,
        }
    }

    #[test]
    fn a_pod_says_by_its_labels_what_engine_it_is_and_where() {
        let hash = ("pod-template-hash", "7c9");
        let point = EnginePoint::of_pod(&pod(&[(PROBE_LABEL, "triton"), hash], "10.1.2.3")).unwrap().unwrap();
        assert_eq!(point.ready, "http://10.1.2.3:8000/v2/health/ready");
        assert_eq!((point.metrics.as_str(), point.workload.as_str()), ("http://10.1.2.3:8002/metrics", "llama"));
        let labels = [(PROBE_LABEL, "vllm"), (PROBE_PORT, "9000"), hash];
        let point = EnginePoint::of_pod(&pod(&labels, "fd00::7")).unwrap().unwrap();
        assert_eq!(point.metrics, "http://[fd00::7]:9000/metrics");
        assert_eq!(EnginePoint::of_pod(&pod(&[], "10.1.2.3")), None);
        assert_eq!(EnginePoint::of_pod(&pod(&[(PROBE_LABEL, "vllm")], "")), None, "it has no address yet");
    }

    #[test]
    fn labels_and_addresses_that_make_no_sense_are_refused_in_words() {
        let why = |labels: &[(&str, &str)], ip: &str| EnginePoint::of_pod(&pod(labels, ip)).unwrap().unwrap_err();
        assert!(why(&[(PROBE_LABEL, "vlm")], "10.1.2.3").contains("write vllm, tgi or triton"));
        assert!(why(&[(PROBE_LABEL, "vllm"), (PROBE_PORT, "0")], "10.1.2.3").contains("no port"));
        let metadata = why(&[(PROBE_LABEL, "vllm")], "169.254.169.254");
        assert!(metadata.contains("metadata"), "{metadata}");
    }

    #[test]
    fn an_engine_is_looked_at_as_the_source_says_that_watches_it() {
        let probe = |looks: u32, pods: bool, targets: Vec<EngineTarget>| ProbeConfig {
            pods,
            targets,
            limits: EngineLimits { looks, ..EngineLimits::default() },
            ..ProbeConfig::default()
        };
        let target: EngineTarget =
            serde_json::from_value(json!({ "url": "http://10.0.0.9:8000", "engine": "vllm" })).unwrap();
        let point = target.point().unwrap();
        let (named, found, other) = (probe(7, false, vec![target]), probe(8, true, vec![]), probe(9, true, vec![]));
        let space = ["inference".to_owned()];
        let engines =
            ProbedEngines::seen_by([(&named, "eu", &[][..]), (&found, "eu", &space[..]), (&other, "us", &[][..])]);
        let looks = |cluster: &str, point: &EnginePoint| {
            engines.probed(cluster, point).map(|probed| probed.manner.limits.looks)
        };
        assert_eq!(looks("us", &point), Some(7), "named, wherever it is");
        let pod = EnginePoint::of_pod(&pod(&[(PROBE_LABEL, "vllm")], "10.1.2.3")).unwrap().unwrap();
        assert_eq!((looks("eu", &pod), looks("us", &pod), looks("ap", &pod)), (Some(8), Some(9), None));
        let elsewhere = EnginePoint { namespace: "research".to_owned(), ..pod };
        assert_eq!(looks("eu", &elsewhere), None, "the source looks at other namespaces");
        let nobodys = EnginePoint { pod: String::new(), endpoint: "10.9.9.9:8000".to_owned(), ..point };
        assert_eq!(looks("eu", &nobodys), None);
    }

    #[test]
    fn a_target_of_the_configuration_keeps_its_own_places() {
        let target: EngineTarget = serde_json::from_value(serde_json::json!({
            "url": "http://llm.example:8000", "engine": "triton", "namespace": "inference", "workload": "llama",
        }))
        .unwrap();
        let point = target.point().unwrap();
        assert_eq!(point.metrics, "http://llm.example:8002/metrics");
        assert_eq!(point.name(), "llm.example:8000");
        let other = EngineTarget { metrics: Some("http://side:9/m".to_owned()), ..target };
        assert_eq!(other.point().unwrap().metrics, "http://side:9/m");
        assert!(EngineTarget { url: "llm:8000".to_owned(), ..other }.point().is_err());
    }
}
