//! One cluster: whether it answers, how fast, whether its clock is ours, and whether we have the rights that we need.
//!
//! Invariant: asks by SelfSubjectAccessReview, so nothing is tried that could change something.

use super::DoctorFindings;
use crate::cli::rbac::RequiredRights;
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::limits;
use crate::model::{KubePermission, Mode};
use crate::world::{ApiHealth, KubeClient, World, WorldError};
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

/// Rights that nothing in this program uses: an identity that holds them has too many.
const NEVER: [KubePermission; 6] = [
    KubePermission::new("", "nodes/proxy", "get"),
    KubePermission::new("", "pods/exec", "create"),
    KubePermission::new("", "secrets", "get"),
    KubePermission::new("", "secrets", "list"),
    KubePermission::new("", "serviceaccounts", "impersonate"),
    KubePermission::new("rbac.authorization.k8s.io", "clusterroles", "escalate"),
];

pub(super) async fn look(
    name: &str,
    kube: &KubeClient,
    config: &Config,
    rights: &RequiredRights,
    findings: &mut DoctorFindings,
) {
    let area = format!("cluster {name}");
    match pulses(kube).await {
        Ok(pulses) => tempo(&area, &pulses, findings),
        Err(error) => {
            let mend = format!("try `kubectl version` with the same settings as `clusters.{name}`");
            findings.bad(&area, error.to_string(), mend);
            return;
        }
    }
    may(&area, kube, config, rights, findings).await;
    match answered(kube.nodes()).await {
        Ok(nodes) => {
            let gpus: u32 = nodes.iter().map(|node| node.gpus).sum();
            findings.good(&area, format!("{} nodes, {gpus} GPUs", nodes.len()));
        }
        // The right has been asked for above.
        Err(WorldError::Forbidden(_)) => {}
        Err(error) => findings.bad(&area, error.to_string(), "check the API server"),
    }
}

/// A kill switch that cannot be read stops everything.
pub(super) async fn kill_switch(config: &Config, world: &World, findings: &mut DoctorFindings) {
    let Some(map) = &config.kill_switch.config_map else { return };
    let shown = format!("ConfigMap {}/{}", map.namespace, map.name);
    let area = "kill switch";
    let read = async { world.kube(map.cluster.as_deref())?.config_map(&map.namespace, &map.name).await };
    match answered(read).await {
        Ok(data) if data.get("stop").is_some_and(|stop| !matches!(stop.as_str(), "" | "false")) => findings.odd(
            area,
            format!("{shown} exists: automation is stopped"),
            format!("kubectl --namespace {} delete configmap {}      # when it may go on", map.namespace, map.name),
        ),
        Ok(_) | Err(WorldError::NotFound(_)) => findings.good(area, format!("{shown} is readable; no stop is set")),
        Err(error) => findings.bad(
            area,
            format!("{shown} cannot be read, so everything is stopped: {error}"),
            format!(
                "rules:      # of a Role in namespace {}, bound to this identity\n- {{apiGroups: [\"\"], resources: [\"configmaps\"], resourceNames: [\"{}\"], verbs: [\"get\"]}}",
                map.namespace, map.name
            ),
        ),
    }
}

async fn pulses(kube: &KubeClient) -> Result<Vec<ApiHealth>, WorldError> {
    let mut pulses = Vec::new();
    for _ in 0..limits::DOCTOR_PULSES {
        pulses.push(answered(kube.pulse()).await?);
    }
    Ok(pulses)
}

async fn answered<T>(asked: impl Future<Output = Result<T, WorldError>>) -> Result<T, WorldError> {
    let within = limits::KUBE_TIMEOUT;
    let silent = || WorldError::Unavailable(format!("does not answer within {} s", within.as_secs()));
    tokio::time::timeout(within, asked).await.unwrap_or_else(|_| Err(silent()))
}

/// How fast it answers, without the first one, which also connects; and how far its clock is from ours.
fn tempo(area: &str, pulses: &[ApiHealth], findings: &mut DoctorFindings) {
    let mut times: Vec<Duration> = pulses.iter().skip(1).map(|pulse| pulse.took).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let version = pulses.last().map(|pulse| pulse.version.as_str()).unwrap_or_default();
    let what = format!("{version} answers in {} ms", median.as_millis());
    if median > limits::KUBE_SLOW {
        let most = limits::KUBE_SLOW.as_millis();
        let mend = "kubectl get --raw /metrics | grep apiserver_flowcontrol      # is our flow throttled? else check the network";
        findings.odd(area, format!("{what}, more than {most} ms: every step waits for several answers"), mend);
    } else {
        findings.good(area, what);
    }
    let Some(date) = pulses.last().and_then(|pulse| pulse.date) else { return };
    // Its header has whole seconds, so half of one is its middle.
    let skew = RealClock.now().as_millisecond() as f64 / 1_000.0 - (date.as_second() as f64 + 0.5);
    if skew.abs() > limits::CLOCK_SKEW.as_secs_f64() {
        let which = if skew > 0.0 { "ahead of" } else { "behind" };
        findings.bad(
            area,
            format!(
                "this machine's clock is {:.0} s {which} the API server's: tokens and leases are misjudged",
                skew.abs()
            ),
            "timedatectl set-ntp true      # on the one that is wrong",
        );
    } else {
        findings.good(area, "its clock agrees with ours");
    }
}

/// Asks for each right; an engine that may not act needs only those that read.
async fn may(area: &str, kube: &KubeClient, config: &Config, rights: &RequiredRights, findings: &mut DoctorFindings) {
    let acts = config.mode_ceiling > Mode::Suggest;
    let applies = |right: &&KubePermission| match right.home() {
        true => acts && kube.cache_job().is_some(),
        false => acts || !right.writes(),
    };
    let needed: Vec<KubePermission> = rights.keys().filter(applies).copied().collect();
    let all: Vec<KubePermission> = needed.iter().chain(&NEVER).copied().collect();
    let held = match ask(kube, &all).await {
        Ok(held) => held,
        Err(error) => {
            let mend = "the ClusterRole system:basic-user allows this to every identity: has its binding been removed?";
            findings.bad(area, format!("cannot read the rights of this identity: {error}"), mend);
            return;
        }
    };
    let missing: Vec<KubePermission> = needed.iter().filter(|right| !held[right]).copied().collect();
    let scope = if acts { "needed" } else { "needed to observe" };
    if missing.is_empty() {
        findings.good(area, format!("has all {} rights that are {scope}", needed.len()));
    } else {
        let words: Vec<String> = missing.iter().map(|right| in_words(right, rights)).collect();
        findings.bad(area, format!("misses {}", words.join(", ")), rules(&missing));
    }
    let too_many: Vec<String> = NEVER.iter().filter(|right| held[right]).map(verb_first).collect();
    if !too_many.is_empty() {
        findings.odd(
            area,
            format!("this identity may also {}, which Nightshift does not need", too_many.join(", ")),
            "nightshift rbac      # prints the roles that are enough; bind these instead",
        );
    }
}

async fn ask(kube: &KubeClient, rights: &[KubePermission]) -> Result<BTreeMap<KubePermission, bool>, WorldError> {
    let asked = rights.iter().map(|right| async move {
        let home = kube.cache_job().filter(|_| right.home()).map_or("", |job| job.namespace.as_str());
        let held = answered(kube.may_within(home, right.group, right.resource, right.verb)).await?;
        Ok((*right, held))
    });
    futures::stream::iter(asked).buffer_unordered(limits::KUBE_AT_ONCE).try_collect().await
}

fn verb_first(right: &KubePermission) -> String {
    format!("{} {}", right.verb, right.resource)
}

fn in_words(right: &KubePermission, rights: &RequiredRights) -> String {
    let by = rights.get(right).map(|by| by.join(", ")).unwrap_or_default();
    format!("{} ({by})", verb_first(right))
}

/// The rules to paste into a ClusterRole.
fn rules(missing: &[KubePermission]) -> String {
    let note = |right: &KubePermission| if right.home() { "      # of a Role where its Jobs are made" } else { "" };
    let lines: Vec<String> = missing.iter().map(|right| format!("{}{}", right.rule(), note(right))).collect();
    format!(
        "rules:      # of a ClusterRole that is bound to this identity; all of them: nightshift rbac\n{}",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::DoctorStatus;

    fn check(millis: u64, seconds_off: i64) -> Vec<(DoctorStatus, String)> {
        let date = crate::model::Time::from_second(RealClock.now().as_second() + seconds_off).ok();
        let pulse = ApiHealth { version: "v1.36.0".to_owned(), took: Duration::from_millis(millis), date };
        let mut findings = DoctorFindings::default();
        tempo("cluster main", &vec![pulse; limits::DOCTOR_PULSES], &mut findings);
        findings.0.into_iter().map(|finding| (finding.health, finding.what)).collect()
    }

    #[test]
    fn a_slow_api_server_and_a_clock_that_is_off_are_told_apart() {
        let well: Vec<DoctorStatus> = check(3, 0).into_iter().map(|(health, _)| health).collect();
        assert_eq!(well, [DoctorStatus::Good, DoctorStatus::Good]);
        let slow = check(900, 0);
        assert!(slow[0].0 == DoctorStatus::Odd && slow[0].1.contains("900 ms"), "{slow:?}");
        let behind = check(3, 60);
        assert!(behind[1].0 == DoctorStatus::Bad && behind[1].1.contains("behind"), "{behind:?}");
        let ahead = check(3, -60);
        assert!(ahead[1].0 == DoctorStatus::Bad && ahead[1].1.contains("ahead of"), "{ahead:?}");
    }
}
