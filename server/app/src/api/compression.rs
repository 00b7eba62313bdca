//! `pith.v1.Compression`: documents shrunk to a budget, without an answer.

use pith_proto::v1;
use pith_proto::v1::compression_server::Compression;
use tonic::{Request, Response, Status};

use super::Api;
use super::gate::Caller;
use super::prepare::pack;
use super::status::ApiError;
use super::validate;
use crate::language_model::Cancelled;

#[tonic::async_trait]
impl Compression for Api {
    async fn compress(
        &self,
        request: Request<v1::CompressRequest>,
    ) -> Result<Response<v1::CompressResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let request_id = validate::request_id(request.request_id)?;
        let unit = validate::unit("offset_unit", request.offset_unit)?;
        validate::query(&request.query)?;
        if request.documents.is_empty() {
            return Err(ApiError::field("documents", "must be at least 1").into());
        }
        validate::not_sticky(request.policy.as_ref())?;
        let mut sources = validate::sources(request.documents, request.policy, &request.query)?;
        let served = self.serving.find(&request.model)?;
        let model = served.name.clone();
        let mut desk = self.desk(&sources)?;
        let work = move |cancelled: Cancelled| {
            let tenant = &*caller.tenant.name;
            desk.read(&mut sources, tenant, &served, unit, caller.deadline, &cancelled)?;
            let means = desk.means(tenant);
            let (text, mut report) =
                pack(&request.query, &sources, unit, &served, means, caller.deadline, cancelled)?;
            desk.leave(tenant, &sources.documents);
            sources.tell(&mut report, request.with_extracted_text);
            Ok((text, report))
        };
        let (text, report) = self.preparers.run(work).await?;
        Ok(Response::new(v1::CompressResponse { request_id, model, text, report: Some(report) }))
    }
}
