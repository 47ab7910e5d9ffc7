//! `POST /in/<kind>/<source>`: body, source, limits, authentication, decode, intake.
