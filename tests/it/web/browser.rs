//! A browser without a screen: cookies, redirects, forms. What it may not do by the rules of browsers, it does not.
//!
//! Invariant: a form is filled in as the page gave it; a test changes only the fields that it names.

use regex::Regex;
use reqwest::Method;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use std::collections::BTreeMap;
use url::Url;

#[derive(Clone)]
pub struct Browser {
    client: reqwest::Client,
    /// By host, name and path, as cookies are kept: a port is no border.
    pub jar: BTreeMap<(String, String, String), String>,
}

#[derive(Debug, Clone)]
pub struct Page {
    pub status: u16,
    pub url: Url,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// Where the redirects led, this page's address last.
    pub way: Vec<Url>,
}

#[derive(Debug, Clone)]
pub struct Form {
    pub action: Url,
    pub fields: Vec<(String, String)>,
}

impl Browser {
    pub fn new() -> Browser {
        nightshift::world::install_tls();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Browser { client: client.build().unwrap(), jar: BTreeMap::new() }
    }

    pub async fn open(&mut self, url: &Url) -> Page {
        self.go(Method::GET, url.clone(), None, &[]).await
    }

    /// Opens an address and stays where it is: where it would have led.
    pub async fn leave(&mut self, url: &Url) -> Url {
        let answer = self.client.get(url.clone()).header(COOKIE, self.cookies(url)).send().await.unwrap();
        self.keep(url, &answer);
        url.join(answer.headers()[LOCATION].to_str().unwrap()).unwrap()
    }

    pub async fn send(&mut self, form: &Form) -> Page {
        let origin = form.action.origin().ascii_serialization();
        self.send_from(form, &[("origin", &origin), ("sec-fetch-site", "same-origin")]).await
    }

    /// As sent by a page of another origin, or by something that is no browser.
    pub async fn send_from(&mut self, form: &Form, headers: &[(&str, &str)]) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        self.go(Method::POST, form.action.clone(), Some(body), headers).await
    }

    async fn go(&mut self, method: Method, url: Url, body: Option<String>, headers: &[(&str, &str)]) -> Page {
        let (mut method, mut url, mut body, mut way) = (method, url, body, Vec::new());
        for _ in 0..20 {
            let mut request = self.client.request(method.clone(), url.clone()).header(COOKIE, self.cookies(&url));
            for (name, value) in headers.iter().filter(|_| body.is_some()) {
                request = request.header(*name, *value);
            }
            if let Some(body) = body.clone() {
                request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
            }
            let answer = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
            way.push(url.clone());
            self.keep(&url, &answer);
            let next = answer.headers().get(LOCATION).map(|to| url.join(to.to_str().unwrap()).unwrap());
            match next {
                Some(next) if answer.status().is_redirection() => (method, url, body) = (Method::GET, next, None),
                _ => {
                    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
                    return Page { status, url, headers, text: answer.text().await.unwrap(), way };
                }
            }
        }
        panic!("too many redirects: {way:?}");
    }

    fn cookies(&self, url: &Url) -> String {
        let host = url.host_str().unwrap();
        let fit = self.jar.iter().filter(|((at, _, path), _)| at == host && url.path().starts_with(path.as_str()));
        fit.map(|((_, name, _), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, url: &Url, answer: &reqwest::Response) {
        for line in answer.headers().get_all(SET_COOKIE) {
            let mut parts = line.to_str().unwrap().split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes: Vec<(String, &str)> = parts
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            let of = |wanted: &str| attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
            let path = of("path").unwrap_or("/").to_owned();
            let key = (url.host_str().unwrap().to_owned(), name.to_owned(), path);
            let gone = of("max-age") == Some("0") || of("expires").is_some_and(|at| at.contains("1970"));
            if gone || value.is_empty() {
                self.jar.remove(&key);
            } else {
                self.jar.insert(key, value.to_owned());
            }
        }
    }

    /// The cookie of our pages.
    pub fn session(&self) -> Option<String> {
        self.jar.iter().find(|((_, name, _), _)| name == "nightshift").map(|(_, value)| value.clone())
    }
}

impl Page {
    /// The form whose action ends so.
    pub fn form(&self, action: &str) -> Form {
        self.form_where(action, |target| target.as_str().ends_with(action))
    }

    /// The form whose action has this in its path, whatever its query says.
    pub fn form_of(&self, path: &str) -> Form {
        self.form_where(path, |target| target.path().contains(path))
    }

    fn form_where(&self, action: &str, is: impl Fn(&Url) -> bool) -> Form {
        let forms = Regex::new(r"(?s)<form\b([^>]*)>(.*?)</form>").unwrap();
        let (tags, attribute) = (Regex::new(r"<(?:input|button)\b([^>]*)>").unwrap(), |tag: &str, name: &str| {
            let value = Regex::new(&format!(r#"\b{name}="([^"]*)""#)).unwrap();
            value.captures(tag).map(|found| unescape(&found[1]))
        });
        for found in forms.captures_iter(&self.text) {
            let target = self.url.join(&attribute(&found[1], "action").unwrap_or_default()).unwrap();
            if !is(&target) {
                continue;
            }
            let inputs = tags.captures_iter(&found[2]).filter(|tag| tag[0].starts_with("<input"));
            let fields = inputs
                .filter_map(|tag| Some((attribute(&tag[1], "name")?, attribute(&tag[1], "value").unwrap_or_default())));
            return Form { action: target.clone(), fields: fields.collect() };
        }
        panic!("no form with action {action} at {}:\n{}", self.url, self.text);
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The page as text, without its tags.
    pub fn words(&self) -> String {
        let bare = Regex::new(r"(?s)<[^>]*>").unwrap().replace_all(&self.text, " ").into_owned();
        unescape(&bare).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Form {
    pub fn with(mut self, name: &str, value: &str) -> Form {
        self.fields.retain(|(given, _)| given != name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Form {
        self.fields.retain(|(given, _)| given != name);
        self
    }

    pub fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value.as_str())
    }
}

fn unescape(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The header of that name, for a form that pretends.
pub const FROM: &str = "origin";
