//! Who may speak to this engine: agents, API tokens, subjects of the identity provider.
//!
//! Invariant: what was taken away is refused in the next request.

use crate::model::{AgentName, AgentStatus, ApiToken, Time, TokenId};
use crate::store::{AgentIdentity, AgentRow, JoinToken, LinkOutcome, NewAgent, NewToken, StoreError, SubjectLink};

#[async_trait::async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Records that an agent has reported, and its state.
    ///
    /// # Errors
    /// `Refused` where its certificate was taken away, or another kind of agent serves that node; how an agent proves its
    /// identity never changes here.
    async fn agent_seen(&self, agent: NewAgent, standing: AgentStatus, now: Time) -> Result<(), StoreError>;

    /// Every agent as it was last written, by cluster and node.
    async fn agents(&self) -> Result<Vec<AgentRow>, StoreError>;

    /// The certificates that are good for that node; none: no agent of that node has joined.
    async fn agent_identity(&self, agent: &AgentName) -> Result<Option<AgentIdentity>, StoreError>;

    /// A newer certificate of the agent was shown: older ones are refused from then on.
    async fn agent_used(&self, agent: NewAgent, now: Time) -> Result<(), StoreError>;

    /// The generation of the certificate that the agent gets for the one that it shows, with a ledger entry.
    ///
    /// # Errors
    /// `Refused` where that one was taken away; `Busy` where it was renewed a moment ago.
    async fn agent_renewed(&self, agent: NewAgent, now: Time) -> Result<u64, StoreError>;

    /// Removes an agent: its certificates are refused, and its silence is no finding.
    ///
    /// # Errors
    /// `NotFound`.
    async fn agent_remove(&self, agent: &AgentName, by: &str, why: &str, now: Time) -> Result<(), StoreError>;

    /// Keeps the hash of a join token.
    ///
    /// # Errors
    /// `Refused` where `limits::JOIN_TOKENS` are open.
    async fn join_token(&self, token: JoinToken, now: Time) -> Result<(), StoreError>;

    /// Whether the token was made for that very node. Changes nothing.
    ///
    /// # Errors
    /// `Refused`, in words, where `join` with that token would be.
    async fn join_check(&self, hash: &str, agent: &AgentName, now: Time) -> Result<bool, StoreError>;

    /// Uses the token with that hash up for this agent. Only this enters an agent with a certificate.
    ///
    /// # Errors
    /// `Refused`, in words, where the token is not known, used, expired, or made for another.
    async fn join(&self, hash: &str, agent: NewAgent, now: Time) -> Result<(), StoreError>;

    /// Makes an API token; returns it as it is kept.
    ///
    /// # Errors
    /// `Refused` where `limits::TOKENS` are in force, or the name has another meaning already.
    async fn token_make(&self, token: NewToken, now: Time) -> Result<ApiToken, StoreError>;

    /// The token with the hash of this text, as it is in the database at this moment.
    async fn token(&self, hash: &str) -> Result<Option<ApiToken>, StoreError>;

    /// The token with this number.
    async fn token_by_id(&self, token: TokenId) -> Result<Option<ApiToken>, StoreError>;

    /// Those in force first, then the newest first; revoked and expired ones too as long as they are kept.
    async fn tokens(&self, now: Time) -> Result<Vec<ApiToken>, StoreError>;

    /// Revokes a token and those that it made, and returns them. Once this has returned, no request is let in by any of them.
    ///
    /// # Errors
    /// `NotFound`; `Refused` where it was revoked before.
    async fn token_revoke(&self, token: TokenId, by: &str, why: &str, now: Time) -> Result<Vec<ApiToken>, StoreError>;

    /// Records that it was used: no entry, and no more often than to the hour.
    async fn token_used(&self, token: TokenId, now: Time) -> Result<(), StoreError>;

    /// Makes a token for everything, and the incident by which these channels are notified of it.
    async fn break_glass(
        &self,
        token: NewToken,
        why: String,
        channels: Vec<String>,
        now: Time,
    ) -> Result<ApiToken, StoreError>;

    /// The persons as which this subject signs in, the first one first.
    async fn subject_links(&self, issuer: &str, subject: &str) -> Result<Vec<SubjectLink>, StoreError>;

    /// Links a subject to a person, or notes that its mail is another one; each with an entry of the ledger. Returns whether
    /// the subject is that person now.
    async fn subject_link(&self, link: SubjectLink, now: Time) -> Result<LinkOutcome, StoreError>;
}
