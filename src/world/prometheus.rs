//! Instant queries through prometheus-http-query.
//!
//! Invariant: "no data" is an empty list and never zero.

use super::{WorldError, http};
use crate::limits;
use crate::model::Labels;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// One series of an instant vector. A scalar is one series without labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromSample {
    pub labels: Labels,
    pub value: f64,
    /// Seconds since 1970.
    pub at: f64,
}

/// A client of one Prometheus.
#[derive(Clone)]
pub struct PrometheusClient {
    link: Arc<QueryClient>,
    place: String,
}

/// Reads the bearer token; the error has the reason.
type ReadToken = dyn Fn() -> Result<Option<String>, String> + Send + Sync;

/// The client, built at the first query for which the token can be read.
struct QueryClient {
    url: String,
    token: Box<ReadToken>,
    built: OnceLock<prometheus_http_query::Client>,
}

#[derive(Deserialize)]
struct PrometheusResponse {
    status: String,
    #[serde(default)]
    data: PrometheusResult,
    #[serde(default, rename = "errorType")]
    kind: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PrometheusResult {
    result_type: String,
    result: Value,
}

#[derive(Deserialize)]
struct PrometheusSeries {
    #[serde(default)]
    metric: Labels,
    /// Absent for a native histogram.
    value: Option<(f64, String)>,
}

impl QueryClient {
    fn client(&self) -> Result<&prometheus_http_query::Client, WorldError> {
        if let Some(client) = self.built.get() {
            return Ok(client);
        }
        super::install_tls();
        let mut headers = reqwest::header::HeaderMap::new();
        let token = (self.token)().map_err(|why| WorldError::Unreached(format!("Prometheus: its token: {why}")))?;
        if let Some(token) = token {
            let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| WorldError::Unreached("Prometheus: its token cannot be sent in a header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(reqwest::header::AUTHORIZATION, value);
        }
        let client = http::built(|| http::client("nightshift").default_headers(headers.clone()))?;
        let client = prometheus_http_query::Client::from(client, &self.url)
            .map_err(|error| WorldError::Invalid(format!("the URL of Prometheus: {error}")))?;
        // Of two that are built at once either will do.
        Ok(self.built.get_or_init(|| client))
    }
}

impl PrometheusClient {
    /// A client of this address. `token`: a bearer token, never shown.
    ///
    /// # Errors
    ///
    /// Fails when the URL is not http or https, or the client cannot be built.
    pub fn connect(url: &str, token: Option<String>) -> Result<PrometheusClient, WorldError> {
        PrometheusClient::connect_with(url, move || Ok(token.clone()))
    }

    /// The same with a token that may not be there yet: until it can be read every query fails with
    /// [`WorldError::Unreached`].
    ///
    /// # Errors
    ///
    /// Fails when the URL is not http or https, or the client cannot be built.
    pub fn connect_with(
        url: &str,
        token: impl Fn() -> Result<Option<String>, String> + Send + Sync + 'static,
    ) -> Result<PrometheusClient, WorldError> {
        let parsed = url::Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| WorldError::Invalid("the URL of Prometheus must be http:// or https://".to_owned()))?;
        let link = QueryClient { url: url.to_owned(), token: Box::new(token), built: OnceLock::new() };
        match link.client() {
            // A token that cannot be read may come later; anything else is a mistake in the settings.
            Ok(_) | Err(WorldError::Unreached(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(PrometheusClient { link: Arc::new(link), place: format!("Prometheus at {}", http::place(&parsed)) })
    }

    /// The result of an instant query.
    ///
    /// # Errors
    ///
    /// Fails when Prometheus is not reached or not in time, refuses the query, or its answer cannot be read.
    pub async fn query(&self, promql: &str) -> Result<Vec<PromSample>, WorldError> {
        // Prometheus gives up a little before we do, so that the answer has the reason.
        let patience = limits::HTTP_TIMEOUT.as_millis() as i64 * 9 / 10;
        let asked = self.link.client()?.query(promql).timeout(patience);
        // A long query does not fit into the URL that proxies allow.
        let sent = if promql.len() < 2_000 { asked.get_raw().await } else { asked.post_raw().await };
        let answer = sent.map_err(|error| self.unanswered(&error))?;
        let code = answer.status().as_u16();
        let body = http::read_body(answer, &self.place).await?;
        let envelope: PrometheusResponse = serde_json::from_slice(&body).map_err(|_| match code {
            401 | 403 => WorldError::Forbidden(format!("{} answered {code}: check its token", self.place)),
            400..=499 => WorldError::Invalid(format!("{} answered {code}, and not in its own words", self.place)),
            _ => WorldError::Unavailable(format!("{} answered {code}, and not in its own words", self.place)),
        })?;
        if envelope.status != "success" {
            let said: String =
                format!("{}: {}", envelope.kind, envelope.error).chars().take(limits::REASON_CHARS).collect();
            return Err(match envelope.kind.as_str() {
                "bad_data" | "execution" | "not_found" | "not_acceptable" => {
                    WorldError::Invalid(format!("{} refused the query: {said}", self.place))
                }
                _ => WorldError::Unavailable(format!("{} answered {code}: {said}", self.place)),
            });
        }
        samples(envelope.data).map_err(|what| WorldError::Invalid(format!("{}: {what}", self.place)))
    }

    fn unanswered(&self, error: &prometheus_http_query::Error) -> WorldError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(own) = error.downcast_ref::<reqwest::Error>() {
                return http::unanswered(own, &self.place);
            }
            cause = error.source();
        }
        // The crate hands out its source's source, so look at the error itself.
        match error {
            prometheus_http_query::Error::Client(_) => {
                WorldError::Unavailable(format!("{} does not answer", self.place))
            }
            other => WorldError::Invalid(format!("{}: {other}", self.place)),
        }
    }
}

fn samples(data: PrometheusResult) -> Result<Vec<PromSample>, String> {
    let unread = |error: serde_json::Error| format!("the result cannot be read: {error}");
    match data.result_type.as_str() {
        "vector" => {
            let series: Vec<PrometheusSeries> = serde_json::from_value(data.result).map_err(unread)?;
            series
                .into_iter()
                .map(|one| match one.value {
                    Some((at, text)) => Ok(PromSample { labels: one.metric, value: number(&text)?, at }),
                    None => Err("a native histogram is not a number: query a quantile or a count of it".to_owned()),
                })
                .collect()
        }
        "scalar" => {
            let (at, text): (f64, String) = serde_json::from_value(data.result).map_err(unread)?;
            Ok(vec![PromSample { labels: Labels::default(), value: number(&text)?, at }])
        }
        other => Err(format!("the query gives a {other}, which is no instant vector: leave out the range `[…]`")),
    }
}

/// Prometheus writes numbers as text: `1`, `NaN`, `+Inf`, `1e+00`.
fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(kind: &str, result: Value) -> Result<Vec<f64>, String> {
        let data = PrometheusResult { result_type: kind.to_owned(), result };
        samples(data).map(|list| list.into_iter().map(|sample| sample.value).collect())
    }

    #[test]
    fn values_are_texts_and_no_data_is_an_empty_list() {
        assert_eq!(read("vector", json!([])), Ok(vec![]));
        let series = |value: &str| json!({ "metric": { "a": "b" }, "value": [1.5, value] });
        assert_eq!(
            read("vector", json!([series("1"), series("+Inf"), series("1e+00")])),
            Ok(vec![1.0, f64::INFINITY, 1.0])
        );
        assert!(read("vector", json!([series("NaN")])).unwrap()[0].is_nan());
        assert_eq!(read("scalar", json!([1.5, "-2"])), Ok(vec![-2.0]));
        assert!(read("matrix", json!([])).unwrap_err().contains("leave out the range"));
        assert!(read("vector", json!([{ "metric": {}, "histogram": [] }])).unwrap_err().contains("histogram"));
    }
}
