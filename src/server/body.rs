//! Reads a body within its bounds: bytes, bytes unpacked, time, speed, and the bytes of all requests together.
//!
//! Invariant: a permit is taken for each byte that has arrived and for none that was only announced; no sender's share is more
//! than a quarter of its pool, and a sender who has proven nothing takes no room of one who has.

use super::{App, Problem};
use crate::limits;
use crate::telemetry::{Refused, Shed};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Where bodies come from whose sender is known only once they are read; each has a pool of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum UnprovenSender {
    Slack,
    PagerDuty,
    SignIn,
    Join,
}

/// How much of a body is read, and out of which pool.
pub(super) struct BodyBound {
    at: UnprovenSender,
    most: usize,
}

impl BodyBound {
    pub(super) fn new(at: UnprovenSender, most: usize) -> BodyBound {
        BodyBound { at, most }
    }
}

/// The body of an agent's request to join.
impl From<usize> for BodyBound {
    fn from(most: usize) -> BodyBound {
        BodyBound { at: UnprovenSender::Join, most }
    }
}

/// Permits for the bytes of bodies, one for each byte that is in memory.
pub struct BodyPools {
    intake: Arc<Semaphore>,
    sources: Mutex<HashMap<String, Arc<Semaphore>>>,
    unproved: Mutex<HashMap<UnprovenSender, Arc<Semaphore>>>,
    forms: Arc<Semaphore>,
}

impl Default for BodyPools {
    fn default() -> BodyPools {
        BodyPools {
            intake: Arc::new(Semaphore::new(limits::INTAKE_BYTES)),
            sources: Mutex::default(),
            unproved: Mutex::default(),
            forms: Arc::new(Semaphore::new(limits::FORM_BYTES)),
        }
    }
}

impl BodyPools {
    /// All sources together, and the share of this one. Sources are those of the configuration, so few.
    fn of_source(&self, source: &str) -> Vec<Arc<Semaphore>> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let share = sources.entry(source.to_owned());
        let share = share.or_insert_with(|| Arc::new(Semaphore::new(limits::INTAKE_BYTES / 4)));
        vec![Arc::clone(share), Arc::clone(&self.intake)]
    }

    fn of(&self, at: UnprovenSender) -> Vec<Arc<Semaphore>> {
        let mut pools = self.unproved.lock().unwrap_or_else(PoisonError::into_inner);
        vec![Arc::clone(pools.entry(at).or_insert_with(|| Arc::new(Semaphore::new(limits::UNPROVED_BYTES / 4))))]
    }
}

/// The permits of one body.
struct BodyPermits {
    pools: Vec<Arc<Semaphore>>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl BodyPermits {
    fn from(pools: Vec<Arc<Semaphore>>) -> BodyPermits {
        BodyPermits { pools, permits: Vec::new() }
    }

    /// Whether there was room for so many more bytes.
    fn more(&mut self, bytes: usize) -> bool {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut fresh = Vec::with_capacity(self.pools.len());
        for pool in &self.pools {
            let Ok(permit) = Arc::clone(pool).try_acquire_many_owned(wanted) else { return false };
            fresh.push(permit);
        }
        match self.permits.is_empty() {
            true => self.permits = fresh,
            false => self.permits.iter_mut().zip(fresh).for_each(|(held, more)| held.merge(more)),
        }
        true
    }
}

/// A body in memory and the permits for its bytes.
pub(super) struct HeldBody {
    pub bytes: Bytes,
    _permits: Vec<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEncoding {
    Plain,
    Gzip,
}

/// The bound on bytes, the time allowed, and the answer to a larger body.
struct BodyLimits<'a> {
    most: usize,
    within: Duration,
    too_large: &'a (dyn Fn() -> Problem + Sync),
}

/// Reads the whole body of a source; a problem names the bound it met.
pub(super) async fn read(app: &App, source: &str, headers: &HeaderMap, body: Body) -> Result<HeldBody, Problem> {
    let packing = packing(app, headers)?;
    let most = if packing == BodyEncoding::Gzip { limits::BODY_COMPRESSED_BYTES } else { limits::BODY_BYTES };
    let room = BodyLimits { most, within: app.pace.body, too_large: &|| too_large(app, packing) };
    let mut taken = BodyPermits::from(app.pools.of_source(source));
    let bytes = within(app, headers, body, &room, &mut taken).await?;
    if packing == BodyEncoding::Plain {
        return Ok(HeldBody { bytes, _permits: taken.permits });
    }
    // Unpacking may take memory and time: it runs off the serving threads, and takes permits as it grows.
    let unpacked = tokio::task::spawn_blocking(move || unpack(&bytes, taken)).await;
    match unpacked {
        Ok(UnpackedBody::Whole(bytes, taken)) => Ok(HeldBody { bytes, _permits: taken.permits }),
        Ok(UnpackedBody::TooLarge) => Err(too_large(app, BodyEncoding::Plain)),
        Ok(UnpackedBody::NoRoom) => Err(no_room(app)),
        Ok(UnpackedBody::Broken) | Err(_) => {
            app.parts.metrics.refused(Refused::Malformed);
            Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "the body is not complete gzip, although its Content-Encoding is gzip",
                "send it whole, or without Content-Encoding",
            ))
        }
    }
}

/// A small body whose sender is known only once it is read, because a signature is over its bytes or a token stands in it. Its
/// endpoint has a pool of its own and little time.
pub(super) async fn unproved(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    bound: impl Into<BodyBound>,
) -> Result<HeldBody, Problem> {
    let BodyBound { at, most } = bound.into();
    let pace = app.pace.body.min(limits::UNPROVED_BODY_TIMEOUT);
    small(app, headers, body, (most, pace), app.pools.of(at)).await
}

/// A form of a page whose visitor has signed in: no stranger takes its room.
pub(super) async fn form(app: &App, headers: &HeaderMap, body: Body) -> Result<HeldBody, Problem> {
    let pools = vec![Arc::clone(&app.pools.forms)];
    small(app, headers, body, (limits::API_BODY_BYTES, app.pace.body), pools).await
}

async fn small(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    (most, pace): (usize, Duration),
    pools: Vec<Arc<Semaphore>>,
) -> Result<HeldBody, Problem> {
    if packing(app, headers)? != BodyEncoding::Plain {
        app.parts.metrics.refused(Refused::MediaType);
        let error = "a packed body is not taken here";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, "send it without Content-Encoding"));
    }
    let too_large = || {
        app.parts.metrics.refused(Refused::TooLarge);
        let error = format!("a body may have {} KiB at most here", most / 1024);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error, "send less at once")
    };
    let room = BodyLimits { most, within: pace, too_large: &too_large };
    let mut taken = BodyPermits::from(pools);
    let bytes = within(app, headers, body, &room, &mut taken).await?;
    Ok(HeldBody { bytes, _permits: taken.permits })
}

/// Reads a body in time and within its room.
async fn within(
    app: &App,
    headers: &HeaderMap,
    mut body: Body,
    room: &BodyLimits<'_>,
    taken: &mut BodyPermits,
) -> Result<Bytes, Problem> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if said.is_some_and(|said| said > room.most) {
        return Err((room.too_large)());
    }
    let start = Instant::now();
    // The announced bytes are not there yet: they get no memory before they come.
    let mut whole = BytesMut::with_capacity(said.unwrap_or(0).min(limits::BODY_FIRST_BYTES));
    loop {
        let Ok(frame) = tokio::time::timeout_at(start + allowed(whole.len(), room.within), body.frame()).await else {
            app.parts.metrics.refused(Refused::Slow);
            let (error, hint) = ("the body did not arrive in time", "send it faster, or in smaller pieces");
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, error, hint));
        };
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "the body broke off", "send all bytes that Content-Length promises")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > room.most {
            return Err((room.too_large)());
        }
        if !taken.more(data.len()) {
            return Err(no_room(app));
        }
        whole.extend_from_slice(&data);
    }
}

/// How long a body may have taken by the time that so many of its bytes are here: a moment to begin, then a minimum speed.
fn allowed(bytes: usize, most: Duration) -> Duration {
    (limits::BODY_BEGINS + Duration::from_millis(bytes as u64 * 1_000 / limits::BODY_BYTES_PER_SECOND)).min(most)
}

fn no_room(app: &App) -> Problem {
    app.parts.metrics.shed(Shed::Bytes);
    Problem::busy("too many bytes are in flight")
}

enum UnpackedBody {
    Whole(Bytes, BodyPermits),
    TooLarge,
    NoRoom,
    Broken,
}

fn unpack(packed: &[u8], mut taken: BodyPermits) -> UnpackedBody {
    let mut reader = flate2::read::MultiGzDecoder::new(packed);
    let mut plain = BytesMut::new();
    let mut piece = vec![0_u8; limits::BODY_FIRST_BYTES];
    loop {
        let count = match reader.read(&mut piece) {
            Ok(0) => return UnpackedBody::Whole(plain.freeze(), taken),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return UnpackedBody::Broken,
        };
        if plain.len() + count > limits::BODY_BYTES {
            return UnpackedBody::TooLarge;
        }
        if !taken.more(count) {
            return UnpackedBody::NoRoom;
        }
        plain.extend_from_slice(&piece[..count]);
    }
}

fn packing(app: &App, headers: &HeaderMap) -> Result<BodyEncoding, Problem> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(BodyEncoding::Plain) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(BodyEncoding::Plain),
        "gzip" | "x-gzip" => Ok(BodyEncoding::Gzip),
        _ => {
            app.parts.metrics.refused(Refused::MediaType);
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "that Content-Encoding is not understood",
                "send the body as it is, or with `Content-Encoding: gzip`",
            ))
        }
    }
}

fn too_large(app: &App, packing: BodyEncoding) -> Problem {
    app.parts.metrics.refused(Refused::TooLarge);
    let (bytes, what) = match packing {
        BodyEncoding::Plain => (limits::BODY_BYTES, "a body"),
        BodyEncoding::Gzip => (limits::BODY_COMPRESSED_BYTES, "a compressed body"),
    };
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("{what} may have {} MiB at most", bytes / 1024 / 1024),
        "group less into one notification (group_by), so that each body is smaller",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_a_moment_to_begin_and_then_a_minimum_speed() {
        let most = limits::BODY_TIMEOUT;
        assert_eq!(allowed(0, most), limits::BODY_BEGINS);
        assert_eq!(allowed(32 * 1024, most), limits::BODY_BEGINS + Duration::from_secs(2));
        assert_eq!(allowed(8 * 1024 * 1024, most), most);
        assert_eq!(allowed(0, limits::UNPROVED_BODY_TIMEOUT), limits::UNPROVED_BODY_TIMEOUT.min(limits::BODY_BEGINS));
    }

    #[test]
    fn one_source_or_endpoint_takes_a_quarter_and_leaves_the_rest() {
        let pools = BodyPools::default();
        let mut lab = BodyPermits::from(pools.of_source("lab"));
        assert!(lab.more(limits::INTAKE_BYTES / 4) && !lab.more(1));
        assert!(BodyPermits::from(pools.of_source("prod")).more(limits::BODY_BYTES));
        let mut slack = BodyPermits::from(pools.of(UnprovenSender::Slack));
        assert!(slack.more(limits::UNPROVED_BYTES / 4) && !slack.more(1));
        for other in [UnprovenSender::PagerDuty, UnprovenSender::SignIn, UnprovenSender::Join] {
            assert!(BodyPermits::from(pools.of(other)).more(64 * 1024), "{other:?}");
        }
        drop(lab);
        assert!(BodyPermits::from(pools.of_source("lab")).more(1), "what was held is given back");
    }
}
