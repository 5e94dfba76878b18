//! The configuration as written: serde and nothing else. Every word stays a string here; compiling
//! parses it. Structs of `Option`s: what is not written is absent, and defaults are set later.
use std::collections::BTreeMap;

use serde::Deserialize;

pub use super::word::{Choice, Word};

pub type Map<T> = BTreeMap<String, T>;

macro_rules! raw {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $name { $($(#[$field_doc])* pub $field: Option<$type>),* }
        )+
    };
}

raw! {
    /// The whole file.
    Config {
        version: u64,
        server: Server,
        listeners: Vec<Listener>,
        admin: Admin,
        store: Store,
        telemetry: Telemetry,
        cache: CacheStore,
        upstreams: Map<Upstream>,
        authenticators: Map<Authenticator>,
        plans: Map<Plan>,
        consumers: Map<Consumer>,
        routes: Vec<Route>,
        llm: Llm,
        mcp: Mcp,
    }
    Server {
        workers: u64,
        grace_period: Word,
        trusted_proxies: Vec<Word>,
        merge_slashes: bool,
        /// What must survive a restart and is no secret: the last good keys of identity providers.
        state_directory: Word,
        limits: Limits,
    }
    Limits {
        request_headers: u64,
        request_header_size: Word,
        request_uri: Word,
        request_body: Word,
        header_timeout: Word,
        body_timeout: Word,
        keepalive_timeout: Word,
        keepalive_requests: u64,
        auth_failures: u64,
    }
    Listener { name: Word, address: Word, mode: Word, h2c: bool, proxy_protocol: bool, tls: ListenerTls }
    ListenerTls {
        certificates: Vec<Certificate>,
        min_version: Word,
        alpn: Vec<Word>,
        client_certificate: Word,
        client_ca: Word,
        client_crl: Vec<Word>,
        acme: Acme,
    }
    Certificate {
        cert: Word,
        key: Word,
        /// What its authority says of it, in DER: stapled.
        ocsp: Word,
    }
    Acme {
        directory: Word,
        email: Word,
        domains: Vec<Word>,
        storage: Word,
        /// `tls-alpn-01` or `http-01`.
        challenge: Word,
        /// Trusted for the directory, beside the system's authorities.
        ca: Word,
    }
    Admin { address: Word, tokens: Vec<Token> }
    Token { id: Word, hash: Word, role: Word }
    /// Exactly one of the two.
    Store { sqlite: Sqlite, postgres: Postgres, on_outage: Word }
    Sqlite { path: Word }
    Postgres { url: Word }
    Telemetry { access_log: AccessLog, metrics: Metrics, tracing: Tracing }
    AccessLog { path: Word, format: Word }
    Metrics { consumers: u64 }
    Tracing {
        /// A collector that takes OTLP over HTTP.
        otlp: Word,
        sample: Word,
        /// Whose decision is followed: `trusted` or `any`.
        parent: Word,
        headers: Map<Word>,
        service: Word,
    }

    CacheStore { memory: Word, disk: CacheDisk }
    CacheDisk { path: Word, size: Word }

    Upstream {
        endpoints: Vec<Endpoint>,
        balance: Word,
        hash_on: Choice,
        protocol: Word,
        timeouts: Timeouts,
        retry: Retry,
        health: Health,
        outlier: Outlier,
        keepalive: u64,
        tls: Tls,
        credentials: Credentials,
    }
    /// What we show the upstream.
    Credentials { client_credentials: ClientCredentials }
    ClientCredentials {
        token_url: Word,
        client_id: Word,
        client_secret: Word,
        /// `client_secret_basic` or `client_secret_post`.
        auth_method: Word,
        scopes: Vec<Word>,
        /// The resource that the token is to be for (RFC 8707).
        resource: Word,
    }
    Endpoint { url: Word, weight: u64 }
    Timeouts { connect: Word, read: Word, write: Word, idle: Word, total: Word }
    Retry { attempts: u64, on: Vec<Word>, budget: u64 }
    Health { path: Word, interval: Word, timeout: Word, healthy_after: u64, unhealthy_after: u64 }
    Outlier { failures: u64, within: Word, eject: Word, at_most: u64 }
    Tls { server_name: Word, ca: Word, cert: Word, key: Word, verify: bool }

    /// Exactly one of the methods.
    Authenticator {
        api_key: ApiKey,
        basic: Basic,
        external: External,
        introspection: Introspection,
        jwt: Jwt,
        mtls: Mtls,
        oidc: Oidc,
        signature: Signature,
    }
    ApiKey { header: Word, bearer: bool, query: Word }
    Basic { realm: Word }
    External {
        url: Word,
        /// Request headers that are sent along; absent: all but hop-by-hop ones and the body's.
        request_headers: Vec<Word>,
        /// Headers of its answer that are set on the request to the upstream.
        response_headers: Vec<Word>,
        consumer: ByHeader,
        timeout: Word,
        /// Remembers a yes for so long; absent: asks each time.
        cache: Word,
        on_outage: Word,
    }
    ByHeader { header: Word, unknown: Word }
    ByClaim { claim: Word, unknown: Word }
    ByField { field: Word, unknown: Word }
    Introspection {
        url: Word,
        client_id: Word,
        client_secret: Word,
        /// `client_secret_basic` or `client_secret_post`.
        auth_method: Word,
        issuer: Word,
        audiences: Vec<Word>,
        leeway: Word,
        cache: Word,
        negative_cache: Word,
        timeout: Word,
        /// `deny`, or `stale`: what was active goes on for the time of `stale`.
        on_outage: Word,
        stale: Word,
        scopes_claim: Word,
        consumer: ByClaim,
        resource: Word,
    }
    Jwt {
        issuer: Word,
        audiences: Vec<Word>,
        algorithms: Vec<Word>,
        jwks_url: Word,
        jwks_file: Word,
        public_key_file: Word,
        secret: Word,
        discovery: bool,
        /// The `typ` that a token must have, such as `at+jwt` (RFC 9068).
        r#type: Word,
        leeway: Word,
        scopes_claim: Word,
        consumer: ByClaim,
        header: Word,
        query: Word,
        cookie: Word,
        required_claims: Vec<Word>,
        require_exp: bool,
        /// The identifier of the protected resource, for its metadata (RFC 9728).
        resource: Word,
        refresh: Word,
        stale: Word,
    }
    Mtls { consumer: ByField }
    Oidc {
        issuer: Word,
        client_id: Word,
        client_secret: Word,
        auth_method: Word,
        scopes: Vec<Word>,
        /// Further parameters of the authorization request, such as `prompt`.
        parameters: Map<Word>,
        algorithms: Vec<Word>,
        callback: Word,
        logout: Word,
        post_logout_redirect: Word,
        session: Word,
        /// The claims that a session keeps; absent: all of the subject.
        claims: Vec<Word>,
        cookie: Word,
        secret: Word,
        previous_secret: Word,
        on_outage: Word,
        consumer: ByClaim,
    }
    Signature {
        components: Vec<Word>,
        max_age: Word,
        clock_skew: Word,
        require_nonce: bool,
        label: Word,
        tag: Word,
    }

    Plan { rate_limits: Vec<RateLimit>, quotas: Vec<Quota>, concurrency: u64 }
    /// `requests` or, of a plan, `tokens`.
    RateLimit { requests: u64, tokens: u64, per: Word, burst: u64, by: Choice }
    /// Exactly one of the first three; `cost` in US dollars.
    Quota { requests: u64, tokens: u64, cost: Word, per: Word }
    Consumer {
        plan: Word,
        groups: Vec<Word>,
        /// What the claims, certificates and answers of others may call it.
        subjects: Vec<Word>,
        api_keys: Vec<Key>,
        basic: Vec<Password>,
        signature_keys: Vec<SignatureKey>,
    }
    SignatureKey { id: Word, algorithm: Word, secret: Word, public_key_file: Word, expires: Word }
    Key { id: Word, hash: Word, expires: Word, scopes: Vec<Word> }
    Password { username: Word, password_hash: Word }

    Route {
        id: Word,
        r#match: Match,
        priority: i64,
        public: bool,
        auth: Vec<Word>,
        pass_credentials: bool,
        /// Percent-encoded bytes that this route lets into a path: `slash`, `nul`.
        allow_encoded: Vec<Word>,
        authorize: Authorize,
        ip: Ip,
        mode: Word,
        body_limit: Word,
        rate_limits: Vec<RateLimit>,
        concurrency: Concurrency,
        validate: Validate,
        request_body: RequestBody,
        request_json: Json,
        response_json: Json,
        /// Bytes of a body that are held to be validated or changed.
        body_buffer: Word,
        compress: Compress,
        cache: Cache,
        cors: Cors,
        rewrite: Rewrite,
        request_headers: Edits,
        request_query: Edits,
        response_headers: Edits,
        mirror: Mirror,
        grpc_web: bool,
        upstream: Word,
        split: Vec<Share>,
        redirect: Redirect,
        respond: Respond,
        llm: RouteLlm,
        mcp: RouteMcp,
    }
    Match {
        hosts: Vec<Word>,
        paths: Vec<Word>,
        methods: Vec<Word>,
        headers: Map<Word>,
        query: Map<Word>,
    }
    Authorize { groups: Vec<Word>, scopes: Vec<Word>, claims: Map<Vec<Word>>, when: Word }
    Ip { allow: Vec<Word>, deny: Vec<Word> }
    Concurrency { requests: u64, by: Choice }
    Validate { request_schema: Word, openapi: Word }
    RequestBody { convert: Word }
    /// By JSON pointers.
    Json { set: Map<Choice>, remove: Vec<Word>, rename: Map<Word> }
    Compress { algorithms: Vec<Word>, min_size: Word }
    Cache {
        ttl: Word,
        query: Vec<Word>,
        per_consumer: bool,
        stale_while_revalidate: Word,
        stale_if_error: Word,
        max_body: Word,
        store_set_cookie: bool,
        /// The response header that names the tags that an entry is purged by.
        tags: Word,
    }
    Cors {
        origins: Vec<Word>,
        methods: Vec<Word>,
        headers: Vec<Word>,
        expose_headers: Vec<Word>,
        credentials: bool,
        max_age: Word,
    }
    Rewrite { strip_prefix: Word, add_prefix: Word, regex: Replace, host: Word }
    Replace { from: Word, to: Word }
    /// The values are templates.
    Edits { set: Map<Word>, add: Map<Word>, remove: Vec<Word> }
    Mirror { upstream: Word, percent: Word, max_body: Word, concurrency: u64 }
    Share { upstream: Word, weight: u64 }
    Redirect { to: Word, status: u64 }
    Respond { status: u64, body: Word, content_type: Word }

    Llm {
        providers: Map<LlmProvider>,
        models: Map<LlmModel>,
        prompts: Map<LlmPrompt>,
        guards: Vec<LlmGuard>,
        ledger: LlmLedger,
    }
    LlmLedger { keep: Word }
    LlmProvider {
        /// `openai`, `azure`, `mistral`, `anthropic`, `gemini`, `ollama` or `bedrock`.
        api: Word,
        url: Word,
        /// Of Anthropic's API, or of Azure's.
        version: Word,
        /// Whether it is like OpenAI and not OpenAI itself.
        compatible: bool,
        /// Of Bedrock, for keys that sign.
        region: Word,
        keys: Vec<LlmKey>,
        tls: Tls,
    }
    LlmKey { id: Word, secret: Word, weight: u64 }
    LlmModel {
        targets: Vec<LlmTarget>,
        /// `weighted` or `least_latency`.
        balance: Word,
        fallback: Vec<LlmTarget>,
        retry: LlmRetry,
        timeouts: LlmTimeouts,
        price: LlmPrice,
        cache: LlmCache,
    }
    LlmCache { ttl: Word, memory: Word, semantic: LlmSemantic }
    LlmSemantic { model: Word, threshold: Word }
    LlmTarget { provider: Word, model: Word, weight: u64 }
    LlmRetry { attempts: u64, on: Vec<Word> }
    LlmTimeouts { first_byte: Word, whole: Word, total: Word }
    /// US dollars a million tokens.
    LlmPrice { input: Word, cached_input: Word, output: Word }
    /// Exactly one of `pattern` and `webhook`.
    LlmGuard {
        name: Word,
        pattern: Word,
        webhook: LlmWebhook,
        action: Word,
        /// What takes the place of what is masked.
        with: Word,
        on: Vec<Word>,
    }
    LlmPrompt {
        model: Word,
        /// Types by name.
        input: Map<Word>,
        system: Word,
        user: Word,
        output: Map<Word>,
        output_schema: Word,
        max_tokens: u64,
        temperature: Word,
    }
    LlmWebhook { url: Word, timeout: Word, on_outage: Word }
    RouteLlm {
        models: Vec<Word>,
        /// In place of `models`: the route is this prompt's endpoint.
        prompt: Word,
        strict: bool,
        /// Whether what is asked and answered stands in the access log.
        log_bodies: bool,
        /// Those that hold here; absent: all.
        guards: Vec<Word>,
    }

    Mcp {
        servers: Map<McpServer>,
        access: Vec<McpAccess>,
        /// Seals what clients keep: the same on all nodes.
        secret: Word,
        previous_secret: Word,
    }
    /// Exactly one of `url` and `openapi`.
    McpServer {
        url: Word,
        openapi: Word,
        /// Of a server with `openapi`: whose policies calls go through.
        route: Word,
        operations: McpOperations,
        answer_limit: Word,
        tools: McpTools,
        credentials: McpCredentials,
        tls: Tls,
        timeout: Word,
        /// Calls at a time.
        concurrency: u64,
        /// How long a list is good whose server does not say.
        cache: Word,
    }
    McpOperations {
        ids: Vec<Word>,
        methods: Vec<Word>,
        tags: Vec<Word>,
        paths: Vec<Word>,
        except: Vec<Word>,
    }
    /// By the server's own names.
    McpTools { allow: Vec<Word>, deny: Vec<Word> }
    McpCredentials { header: McpHeader, client_credentials: ClientCredentials }
    McpHeader { name: Word, value: Word }
    McpAccess {
        consumers: Vec<Word>,
        groups: Vec<Word>,
        scopes: Vec<Word>,
        tools: Vec<Word>,
        deny: Vec<Word>,
        rate_limits: Vec<RateLimit>,
        /// A file with the JSON Schema of what may be asked.
        arguments: Word,
    }
    RouteMcp { servers: Vec<Word>, resource: Word, origins: Vec<Word>, prefix: bool }
}
