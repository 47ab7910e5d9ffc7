//! The API inside the process: pages and chats call the handlers' own functions and get their types.
//!
//! Invariant: a call from inside passes the same table of rights and the same audit as a request with the caller's token.

use super::{Allowed, App, Asked, Body, Caller, Problem, act, incidents, ladder, read, right_for, segment, why};
use crate::api::{
    ApprovalAnswer, ApprovalList, AssignRequest, DecisionRequest, EngineStatus, Explanation, FreezeAnswer,
    FreezeRequest, GuardLevels, IncidentAnswer, IncidentDetail, IncidentList, JudgeAnswer, JudgeRequest, ListQuery,
    RunAnswer, RunDetail, RunList, RunRequest, ScopeRequest, ScorecardAnswer, SilenceAnswer, SilenceRequest,
    Simulation, UnfreezeAnswer, WhyQuery,
};
use crate::planted::planted;
use crate::server::witness;
use axum::extract::{Path, State};

/// The API as one caller may use it.
pub(in crate::server) struct Inside<'a> {
    app: &'a App,
    caller: &'a Caller,
}

/// Lists and single rows are read, the rest acts.
const GET: &str = "GET";
const POST: &str = "POST";

impl<'a> Inside<'a> {
    pub fn new(app: &'a App, caller: &'a Caller) -> Inside<'a> {
        Inside { app, caller }
    }

    /// `route` as in the table, without its prefix; `id` stands in it where the table has a name in braces.
    async fn call<T, Work: Future<Output = Result<T, Problem>>>(
        &self,
        (method, route): (&str, &str),
        id: &str,
        work: impl FnOnce(Allowed) -> Work,
    ) -> Result<T, Problem> {
        let matched = format!("/api/v1/{route}");
        let path = match (matched.find('{'), matched.find('}')) {
            (Some(from), Some(to)) => format!("{}{}{}", &matched[..from], segment(id), &matched[to + 1..]),
            _ => matched.clone(),
        };
        let right = right_for(method, &matched);
        let allowed = async {
            if !planted("pages-skip-the-roles") {
                self.caller.need(right)?;
            }
            work(Allowed(self.caller.clone())).await
        };
        witness::within(self.app, self.caller, (method, &matched, &path), allowed).await
    }

    fn app(&self) -> State<App> {
        State(self.app.clone())
    }

    pub async fn status(&self) -> Result<EngineStatus, Problem> {
        let answer = self.call((GET, "status"), "", |allowed| read::status(allowed, self.app())).await;
        answer.map(|json| json.0)
    }

    pub async fn guards(&self) -> Result<GuardLevels, Problem> {
        let answer = self.call((GET, "guards"), "", |allowed| read::guards(allowed, self.app())).await;
        answer.map(|json| json.0)
    }

    pub async fn incidents(&self, list: ListQuery) -> Result<IncidentList, Problem> {
        let answer =
            self.call((GET, "incidents"), "", |allowed| read::incidents(allowed, self.app(), Asked(list))).await;
        answer.map(|json| json.0)
    }

    pub async fn incident(&self, id: &str) -> Result<IncidentDetail, Problem> {
        let work = |allowed| read::incident(allowed, self.app(), Path(id.to_owned()));
        self.call((GET, "incidents/{id}"), id, work).await.map(|json| json.0)
    }

    pub async fn runs(&self, list: ListQuery) -> Result<RunList, Problem> {
        let answer = self.call((GET, "runs"), "", |allowed| read::runs(allowed, self.app(), Asked(list))).await;
        answer.map(|json| json.0)
    }

    pub async fn run(&self, id: &str) -> Result<RunDetail, Problem> {
        let work = |allowed| read::run(allowed, self.app(), Path(id.to_owned()));
        self.call((GET, "runs/{id}"), id, work).await.map(|json| json.0)
    }

    pub async fn approvals(&self, list: ListQuery) -> Result<ApprovalList, Problem> {
        let answer =
            self.call((GET, "approvals"), "", |allowed| read::approvals(allowed, self.app(), Asked(list))).await;
        answer.map(|json| json.0)
    }

    pub async fn approval(&self, id: &str) -> Result<ApprovalAnswer, Problem> {
        let work = |allowed| read::approval(allowed, self.app(), Path(id.to_owned()));
        self.call((GET, "approvals/{id}"), id, work).await.map(|json| json.0)
    }

    pub async fn why(&self, subject: &str) -> Result<Explanation, Problem> {
        let query = WhyQuery { subject: subject.to_owned() };
        let answer = self.call((GET, "why"), "", |allowed| why::why(allowed, self.app(), Asked(query))).await;
        answer.map(|json| json.0)
    }

    pub async fn scorecard(&self, rule: &str) -> Result<ScorecardAnswer, Problem> {
        let work = |allowed| ladder::scorecard(allowed, self.app(), Path(rule.to_owned()));
        self.call((GET, "rules/{rule}/scorecard"), rule, work).await.map(|json| json.0)
    }

    pub async fn acknowledge(&self, id: &str) -> Result<IncidentAnswer, Problem> {
        let work = |allowed| act::acknowledge(allowed, self.app(), Path(id.to_owned()));
        self.call((POST, "incidents/{id}/ack"), id, work).await.map(|json| json.0)
    }

    pub async fn assign(&self, id: &str, request: AssignRequest) -> Result<IncidentAnswer, Problem> {
        let work = |allowed| incidents::assign(allowed, self.app(), Path(id.to_owned()), Body(request));
        self.call((POST, "incidents/{id}/assign"), id, work).await.map(|json| json.0)
    }

    pub async fn silence(&self, id: &str, request: SilenceRequest) -> Result<SilenceAnswer, Problem> {
        let work = |allowed| incidents::silence(allowed, self.app(), Path(id.to_owned()), Body(request));
        self.call((POST, "incidents/{id}/silence"), id, work).await.map(|json| json.0)
    }

    pub async fn decide(&self, id: &str, request: DecisionRequest) -> Result<ApprovalAnswer, Problem> {
        let work = |allowed| act::decide(allowed, self.app(), Path(id.to_owned()), Body(request));
        self.call((POST, "approvals/{id}"), id, work).await.map(|json| json.0)
    }

    pub async fn judge(&self, id: &str, request: JudgeRequest) -> Result<JudgeAnswer, Problem> {
        let work = |allowed| ladder::judge(allowed, self.app(), Path(id.to_owned()), Body(request));
        self.call((POST, "runs/{id}/judge"), id, work).await.map(|json| json.0)
    }

    pub async fn freeze(&self, request: FreezeRequest) -> Result<FreezeAnswer, Problem> {
        let answer = self.call((POST, "freezes"), "", |allowed| act::freeze(allowed, self.app(), Body(request))).await;
        answer.map(|made| made.0)
    }

    pub async fn unfreeze(&self, request: ScopeRequest) -> Result<UnfreezeAnswer, Problem> {
        let answer =
            self.call((POST, "unfreeze"), "", |allowed| act::unfreeze(allowed, self.app(), Body(request))).await;
        answer.map(|json| json.0)
    }

    pub async fn simulate(&self, request: RunRequest) -> Result<Simulation, Problem> {
        let answer =
            self.call((POST, "simulate"), "", |allowed| act::simulate(allowed, self.app(), Body(request))).await;
        answer.map(|json| json.0)
    }

    pub async fn start(&self, request: RunRequest) -> Result<RunAnswer, Problem> {
        let answer = self.call((POST, "runs"), "", |allowed| act::start(allowed, self.app(), Body(request))).await;
        answer.map(|made| made.0)
    }
}
