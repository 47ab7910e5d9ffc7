//! Reads a body within its bounds: bytes, bytes unpacked, time, and the bytes of all requests together.
//!
//! Invariant: no byte is kept without a permit, and nothing past a bound is read.

use super::{App, Problem};
use crate::limits;
use crate::telemetry::{Refused, Shed};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::io::Read as _;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body in memory and the permits for its bytes.
pub(super) struct Held {
    pub bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
}

/// How much is read at most, whose room it takes, and what is said to who sends more.
struct Room<'a> {
    budget: &'a Arc<Semaphore>,
    most: usize,
    too_large: &'a (dyn Fn() -> Problem + Sync),
}

/// Reads all of it; a problem says which bound it met.
pub(super) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Held, Problem> {
    let packing = packing(app, headers)?;
    let most = if packing == Packing::Gzip { limits::BODY_COMPRESSED_BYTES } else { limits::BODY_BYTES };
    let room = Room { budget: &app.bytes, most, too_large: &|| too_large(app, packing) };
    let (bytes, mut permit) = within(app, headers, body, &room).await?;
    if packing == Packing::Plain {
        return Ok(Held { bytes, _permit: permit });
    }
    // Unpacking may take memory and time: bytes are held before, and it runs off the serving threads.
    hold(app, room.budget, &mut permit, limits::BODY_BYTES)?;
    let unpacked = tokio::task::spawn_blocking(move || unpack(&bytes)).await;
    match unpacked {
        Ok(Ok(bytes)) if bytes.len() <= limits::BODY_BYTES => Ok(Held { bytes, _permit: permit }),
        Ok(Ok(_)) => Err(too_large(app, Packing::Plain)),
        Ok(Err(_)) | Err(_) => {
            app.parts.metrics.refused(Refused::Malformed);
            Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "the body is not whole gzip, as its Content-Encoding says",
                "send it whole, or without Content-Encoding",
            ))
        }
    }
}

/// A small body whose sender is known only once it is read, because a signature is over its bytes or a token stands in it.
/// It has a budget of its own: who has no key takes no room of events.
pub(super) async fn unproved(app: &App, headers: &HeaderMap, body: Body, most: usize) -> Result<Held, Problem> {
    if packing(app, headers)? != Packing::Plain {
        app.parts.metrics.refused(Refused::MediaType);
        let error = "a packed body is not taken here";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error, "send it without Content-Encoding"));
    }
    let too_large = || {
        app.parts.metrics.refused(Refused::TooLarge);
        let error = format!("a body may have {} KiB at most here", most / 1024);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error, "send less at once")
    };
    let room = Room { budget: &app.unproved, most, too_large: &too_large };
    let (bytes, permit) = within(app, headers, body, &room).await?;
    Ok(Held { bytes, _permit: permit })
}

/// Reads a body in time and within its room. What was announced is held before the first byte.
async fn within(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    room: &Room<'_>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if said.is_some_and(|said| said > room.most) {
        return Err((room.too_large)());
    }
    let mut permit = None;
    if let Some(said) = said {
        hold(app, room.budget, &mut permit, said)?;
    }
    let reading = collect(app, body, room, said, &mut permit);
    let bytes = tokio::time::timeout(app.pace.body, reading).await.unwrap_or_else(|_| {
        app.parts.metrics.refused(Refused::Slow);
        Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
            "send it faster, or in smaller pieces",
        ))
    })?;
    Ok((bytes, permit))
}

async fn collect(
    app: &App,
    mut body: Body,
    room: &Room<'_>,
    said: Option<usize>,
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::with_capacity(said.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "the body broke off", "send all bytes that Content-Length promises")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > room.most {
            return Err((room.too_large)());
        }
        if said.is_none() {
            hold(app, room.budget, permit, data.len())?;
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn hold(
    app: &App,
    budget: &Arc<Semaphore>,
    permit: &mut Option<OwnedSemaphorePermit>,
    bytes: usize,
) -> Result<(), Problem> {
    let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
    let more = Arc::clone(budget).try_acquire_many_owned(wanted).map_err(|_| {
        app.parts.metrics.shed(Shed::Bytes);
        Problem::busy("too many bytes are under way")
    })?;
    match permit {
        Some(held) => held.merge(more),
        None => *permit = Some(more),
    }
    Ok(())
}

fn unpack(packed: &[u8]) -> std::io::Result<Bytes> {
    let mut plain = Vec::new();
    let bound = limits::BODY_BYTES as u64 + 1;
    flate2::read::MultiGzDecoder::new(packed).take(bound).read_to_end(&mut plain)?;
    Ok(Bytes::from(plain))
}

fn packing(app: &App, headers: &HeaderMap) -> Result<Packing, Problem> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Packing::Plain) };
    match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Packing::Plain),
        "gzip" | "x-gzip" => Ok(Packing::Gzip),
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

fn too_large(app: &App, packing: Packing) -> Problem {
    app.parts.metrics.refused(Refused::TooLarge);
    let (bytes, what) = match packing {
        Packing::Plain => (limits::BODY_BYTES, "a body"),
        Packing::Gzip => (limits::BODY_COMPRESSED_BYTES, "a compressed body"),
    };
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("{what} may have {} MiB at most", bytes / 1024 / 1024),
        "group less into one notification (group_by), so that each body is smaller",
    )
}
