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
use tokio::sync::OwnedSemaphorePermit;

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

/// Reads all of it; a problem says which bound it met.
pub(super) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Held, Problem> {
    let packing = packing(app, headers)?;
    let most = if packing == Packing::Gzip { limits::BODY_COMPRESSED_BYTES } else { limits::BODY_BYTES };
    let said = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if said.is_some_and(|said| said > most) {
        return Err(too_large(app, packing));
    }
    let mut permit = None;
    if let Some(said) = said {
        hold(app, &mut permit, said)?;
    }
    let reading = collect(app, body, most, packing, said, &mut permit);
    let bytes = tokio::time::timeout(app.pace.body, reading).await.unwrap_or_else(|_| {
        app.parts.metrics.refused(Refused::Slow);
        Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
            "send it faster, or in smaller pieces",
        ))
    })?;
    if packing == Packing::Plain {
        return Ok(Held { bytes, _permit: permit });
    }
    // Unpacking may take memory and time: bytes are held before, and it runs off the serving threads.
    hold(app, &mut permit, limits::BODY_BYTES)?;
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

async fn collect(
    app: &App,
    mut body: Body,
    most: usize,
    packing: Packing,
    said: Option<usize>,
    permit: &mut Option<OwnedSemaphorePermit>,
) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::with_capacity(said.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "the body broke off", "send all bytes that Content-Length promises")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > most {
            return Err(too_large(app, packing));
        }
        if said.is_none() {
            hold(app, permit, data.len())?;
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

fn hold(app: &App, permit: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
    let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
    let more = std::sync::Arc::clone(&app.bytes).try_acquire_many_owned(wanted).map_err(|_| {
        app.parts.metrics.shed(Shed::Bytes);
        Problem::busy("too many bytes of events are under way")
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
