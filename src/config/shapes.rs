//! What `gateway.toml` holds, table by table. [`super::read`] reads it.

use crate::domain::document::keys::{Key, Kind, Shape, names};
use crate::domain::policy;
use crate::egress::encode::Format;
use crate::egress::kafka::Mechanism;
use crate::identity;

use super::budgets::STEPS;
use super::destinations::WHEN_DENIED;
use super::{Mode, OnStop};

/// What `gateway.toml` holds.
pub(super) const GATEWAY_TOML: Shape = Shape {
    name: "gateway.toml",
    about: "Where things are. The policies say what is allowed.",
    keys: &[
        Key::required("gateway", Kind::Table(&GATEWAY), "The gateway itself."),
        Key::new("listen", Kind::Table(&LISTEN), "Where it listens."),
        Key::new("tls", Kind::Table(&TLS), "How connections prove who they are."),
        Key::new("http", Kind::Table(&HTTP), "Where it tells how it does: health and metrics."),
        Key::new("limits", Kind::Table(&LIMITS), "Limits of requests."),
        Key::new("journal", Kind::Table(&JOURNAL), "Where and how the journal is kept."),
        Key::new("ledger", Kind::Table(&LEDGER), "Where the ledger is kept, which says what left."),
        Key::new("scoring", Kind::Table(&SCORING), "How records are scored."),
        Key::new("models", Kind::Named(&Kind::Text), "The file of each model."),
        Key::new("registries", Kind::Named(&Kind::Text), "The file of each registry."),
        Key::new("geoip", Kind::Table(&GEOIP), "Databases of network addresses."),
        Key::new("destinations", Kind::Named(&Kind::Table(&DESTINATION)), "The destinations, by name."),
        Key::new("cost", Kind::Table(&COST), "What bytes cost that leave, for `bailiwick report`."),
        Key::new("log", Kind::Table(&LOG), "What the log says."),
        Key::new(
            "peers",
            Kind::List(&Kind::Table(&PEER)),
            "The other gateways. They are named to producers and never contacted.",
        ),
        Key::new("shadow", Kind::Table(&SHADOW), "Policies that are tried beside the ones in force."),
    ],
};

const NAMES: Kind = Kind::List(&Kind::Text);

const CONDITIONS: Key = Key::new(
    "conditions",
    Kind::Named(&Kind::Table(&policy::PROOF)),
    "What has been shown of it as a recipient, by condition.",
);

const GATEWAY: Shape = Shape {
    name: "gateway",
    about: "The gateway itself.",
    keys: &[
        Key::required("id", Kind::Text, "Its id, unique among its peers."),
        Key::required("country", Kind::Text, "The ISO 3166 code of the place where records are processed."),
        Key::required("serves", NAMES, "The regimes whose records it keeps."),
        Key::required("policies", NAMES, "The policies: files, or directories of them."),
        Key::new(
            "mode",
            Kind::Word(&names(&Mode::NAMES)),
            "`dry-run`: everything is decided and counted, nothing leaves. Default: enforce.",
        ),
        Key::new("stop_within", Kind::Duration, "How long a stop may take. Default: PT10S."),
        Key::new("on_stop", Kind::Word(&names(&OnStop::NAMES)), "What a stop does with open windows. Default: keep."),
        CONDITIONS,
    ],
};

const LISTEN: Shape = Shape {
    name: "listen",
    about: "Where the gateway listens.",
    keys: &[
        Key::new("grpc", Kind::Text, "The address of the gRPC service. Default: 127.0.0.1:7400."),
        Key::new(
            "plaintext",
            Kind::Bool,
            "Whether it speaks plain text, which only loopback may. Default: true on loopback without [tls].",
        ),
        Key::new("connections_max", Kind::Count, "The most connections at a time. Default: 1024."),
    ],
};

const HTTP: Shape = Shape {
    name: "http",
    about: "Where the gateway tells how it does: /healthz, /readyz, /status, /metrics.",
    keys: &[
        Key::new(
            "listen",
            Kind::Text,
            "The address. Elsewhere than on loopback it needs [tls]. Default: 127.0.0.1:7401.",
        ),
        Key::new(
            "plaintext",
            Kind::Bool,
            "Whether it speaks plain text, which only loopback may. Default: true on loopback.",
        ),
    ],
};

const TLS: Shape = Shape {
    name: "tls",
    about: "How connections prove who they are. Without `tokens`, every client needs a certificate.",
    keys: &[
        Key::required("certificate", Kind::Text, "The gateway's certificate in PEM, then those that signed it."),
        Key::required("key", Kind::Text, "The certificate's private key in PEM. Others must not be able to read it."),
        Key::required("client_ca", Kind::Text, "The authorities that sign the certificates of clients, in PEM."),
        Key::new(
            "revocation",
            NAMES,
            "The revocation lists of those authorities, in PEM. With any, every client's chain must be covered.",
        ),
        Key::new(
            "identity",
            Kind::Word(&names(&identity::Kind::NAMES)),
            "Which name of a certificate counts: its one SPIFFE URI, or its one DNS name. Default: spiffe.",
        ),
        Key::required("trust_domain", Kind::Text, "The domain that every identity belongs to."),
        Key::new("tokens", Kind::Table(&TOKENS), "Bearer tokens, for clients without a certificate."),
        Key::new(
            "connections_per_identity_max",
            Kind::Count,
            "The most connections of one identity at a time. Default: 64.",
        ),
        Key::new(
            "handshakes_per_address_max",
            Kind::Count,
            "The most handshakes in progress of one network address. Default: 64.",
        ),
        Key::new(
            "handshakes_per_second_per_address_max",
            Kind::Count,
            "The most handshakes that one network address may begin in a second. Default: 100.",
        ),
        Key::new(
            "handshakes_per_second_max",
            Kind::Count,
            "The most handshakes that begin in a second; more wait. Default: 500.",
        ),
        Key::new(
            "connection_age_max",
            Kind::Duration,
            "After about this time a client has to connect anew. Default: PT1H.",
        ),
        Key::new(
            "connection_idle_max",
            Kind::Duration,
            "After about this time without a call a connection is brought to its end. Default: PT15M.",
        ),
    ],
};

const TOKENS: Shape = Shape {
    name: "tls.tokens",
    about: "Bearer tokens (JWT), for clients without a certificate.",
    keys: &[
        Key::required("jwks", Kind::Text, "The file of the issuer's public keys (JWKS), for RS256, ES256 and EdDSA."),
        Key::required("issuer", Kind::Text, "Who issues the tokens: their `iss`."),
        Key::required("audience", Kind::Text, "For whom they are: one of their `aud`."),
        Key::new(
            "claim",
            Kind::Text,
            "The claim that says who it is. The identity is `token:` and its value. Default: sub.",
        ),
    ],
};

const LIMITS: Shape = Shape {
    name: "limits",
    about: "Limits of requests.",
    keys: &[
        Key::new("batch_rows_max", Kind::Count, "The most records of a request. Default: 65536."),
        Key::new("batch_bytes_max", Kind::Count, "The most bytes of a request. Default: 8388608."),
        Key::new(
            "in_flight_bytes_max",
            Kind::Count,
            "The most bytes that requests hold in memory. Default: 134217728.",
        ),
        Key::new("open_windows_bytes_max", Kind::Count, "The most bytes of all open windows. Default: 134217728."),
        Key::new("producers_active_max", Kind::Count, "The most producers active on a stream. Default: 1000000."),
        Key::new(
            "producers_per_address_max",
            Kind::Count,
            "The most producers from one network address, active on a stream or remembered. Default: 100000.",
        ),
        Key::new(
            "producers_per_identity_max",
            Kind::Count,
            "The most producers that one proved identity speaks as, active on a stream or remembered. Default: 100000.",
        ),
        Key::new("producers_remembered_max", Kind::Count, "The most numbered producers remembered. Default: 1000000."),
        Key::new(
            "producers_forgotten_after",
            Kind::Duration,
            "When a limit is reached, a numbered producer may be forgotten after this silence. Default: P30D.",
        ),
    ],
};

const JOURNAL: Shape = Shape {
    name: "journal",
    about: "Where and how the journal is kept.",
    keys: &[
        Key::new("directory", Kind::Text, "Its directory. Default: journal."),
        Key::new("segment_bytes", Kind::Count, "The size of a segment."),
        Key::new("quota_bytes", Kind::Count, "The most bytes of the journal, and of the outbox. Default: 8 GiB."),
        Key::new("checkpoint_bytes", Kind::Count, "After how many bytes a checkpoint is made. Default: 64 MiB."),
        Key::new("checkpoint_every", Kind::Duration, "After how long a checkpoint is made. Default: PT5S."),
        Key::new("keys", Kind::Named(&Kind::Text), "The key file of each regime. Without it nothing is sealed."),
    ],
};

const LEDGER: Shape = Shape {
    name: "ledger",
    about: "Where the ledger is kept, which says what left.",
    keys: &[
        Key::new("directory", Kind::Text, "Its directory. Default: `ledger` in the journal's directory."),
        Key::new(
            "key",
            Kind::Text,
            "The file of its secret key. It is made if there is none. Default: `ledger.key` in the journal's directory.",
        ),
        Key::new("origin", Kind::Text, "Its name, which signatures name. Default: bailiwick/ID."),
        Key::new("witness", Kind::Named(&Kind::Table(&WITNESS)), "Who cosigns its checkpoints, by name."),
        Key::new("witness_every", Kind::Duration, "How often they are asked. Default: PT60S."),
    ],
};

const WITNESS: Shape = Shape {
    name: "witness",
    about: "Somebody who cosigns the ledger's checkpoints (C2SP tlog-witness).",
    keys: &[
        Key::required("key", Kind::Text, "Its public key."),
        Key::required("url", Kind::Text, "Where it is asked: http://HOST:PORT."),
    ],
};

const SCORING: Shape = Shape {
    name: "scoring",
    about: "How records are scored.",
    keys: &[
        Key::new("workers", Kind::Count, "How many threads serve connections, score and count. Default: one per core."),
        Key::new(
            "rows_together_max",
            Kind::Count,
            "The most records that share a batch, and a run of the model. Default: 1024.",
        ),
        Key::new("deadline", Kind::Duration, "How long a run of a model may take. Default: PT5S."),
        Key::new("onnxruntime", Kind::Text, "ONNX Runtime's library."),
    ],
};

const LOG: Shape = Shape {
    name: "log",
    about: "What the log says.",
    keys: &[Key::new("every", Kind::Duration, "How often it sums up what happened. Default: PT60S.")],
};

const COST: Shape = Shape {
    name: "cost",
    about: "What bytes cost that leave, for `bailiwick report`.",
    keys: &[
        Key::new("currency", Kind::Text, "The currency of all prices, as in ISO 4217. Default: EUR."),
        Key::new("price_per_gib", Kind::Number, "What a GiB costs, unless a destination has a price of its own."),
    ],
};

const SHADOW: Shape = Shape {
    name: "shadow",
    about: "Policies that are tried beside the ones in force.",
    keys: &[Key::required("policies", NAMES, "The policies: files, or directories of them.")],
};

const GEOIP: Shape = Shape {
    name: "geoip",
    about: "Databases of network addresses.",
    keys: &[
        Key::required("databases", NAMES, "Their files, at least two."),
        Key::new("agree", Kind::Count, "How many must name the same country, at least two. Default: 2."),
    ],
};

const PEER: Shape = Shape {
    name: "peers",
    about: "Another gateway.",
    keys: &[
        Key::required("id", Kind::Text, "Its id."),
        Key::required("country", Kind::Text, "The ISO 3166 code of the place where it processes records."),
        Key::required("endpoint", Kind::Text, "Its address, as in https://gateway.example:7401."),
        Key::new(
            "identity",
            Kind::Text,
            "Who it is, as its certificate names it: spiffe://corp.example/gateways/2, say.",
        ),
        Key::required("serves", NAMES, "The regimes whose records it keeps."),
        CONDITIONS,
    ],
};

const DESTINATION: Shape = Shape {
    name: "destinations.NAME",
    about: "Where a destination is.",
    keys: &[
        Key::required("kind", Kind::Word(&["file", "kafka"]), "What it is."),
        Key::new("format", Kind::Word(&names(&Format::NAMES)), "The format of releases. Default: jsonl."),
        Key::new("directory", Kind::Text, "For `file`, required: the directory."),
        Key::new(
            "rotate_bytes",
            Kind::Count,
            "For `file`: the size in memory at which a file is closed, up to 268435456. Default: 8388608.",
        ),
        Key::new("rotate_after", Kind::Duration, "For `file`: the age at which a file is closed. Default: PT60S."),
        Key::new("mode", Kind::Text, "For `file`: the mode of its files, in octal. Default: 0640."),
        Key::new("group", Kind::Text, "For `file`: the group of its files, by name or number."),
        Key::new("brokers", Kind::Text, "For `kafka`, required: the brokers."),
        Key::new("topic", Kind::Text, "For `kafka`, required: the topic."),
        Key::new("exactly_once", Kind::Bool, "For `kafka`: whether releases go out in transactions. Default: false."),
        Key::new(
            "progress_topic",
            Kind::Text,
            "For `kafka` with `exactly_once`: where the progress is kept. Default: TOPIC-progress-GATEWAY.",
        ),
        Key::new("tls", Kind::Table(&DESTINATION_TLS), "For `kafka`: TLS. Without it, plain text."),
        Key::new("sasl", Kind::Table(&DESTINATION_SASL), "For `kafka`: who the gateway is."),
        Key::new("options", Kind::Named(&Kind::Text), "For `kafka`: further settings of librdkafka."),
        Key::new("budget", Kind::Table(&DESTINATION_BUDGET), "How many bytes may leave. Without it, any."),
        Key::new(
            "when_denied",
            Kind::Word(&WHEN_DENIED),
            "What becomes of a release that no policy lets go there any more when it is its turn. Default: wait.",
        ),
        Key::new("price_per_gib", Kind::Number, "What a GiB costs that is sent there. Default: that of `[cost]`."),
    ],
};

const DESTINATION_BUDGET: Shape = Shape {
    name: "destinations.NAME.budget",
    about: "How many bytes may leave for a destination. It is a bucket that is full at first and fills evenly.",
    keys: &[
        Key::required("bytes", Kind::Count, "The most bytes at once, at least 4096."),
        Key::required("per", Kind::Duration, "In this time as many bytes come into the bucket."),
        Key::new(
            "when_short",
            Kind::List(&Kind::Word(&STEPS)),
            "What becomes of a release when there are too few bytes, in this order. Default: defer.",
        ),
        Key::new("roll_up", NAMES, "With `roll_up`, required: the keys that are given up, one after the other."),
        Key::new("top", Kind::Table(&BUDGET_TOP), "With `top`, required: how many rows leave, and which."),
        Key::new(
            "max_age",
            Kind::Duration,
            "With `defer` and `shed`, required: how long a release waits for bytes before it is shed.",
        ),
        Key::new("priorities", NAMES, "With `shed`: the datasets that are shed last, the most important one first."),
    ],
};

const BUDGET_TOP: Shape = Shape {
    name: "destinations.NAME.budget.top",
    about: "What leaves of a release that there are too few bytes for: its largest rows.",
    keys: &[
        Key::required("rows", Kind::Count, "How many rows, at least 1."),
        Key::required(
            "by",
            Kind::OneOf(&[Kind::Text, Kind::Named(&Kind::Text)]),
            "The metric that says how large a row is, a count or a sum; or one for each dataset.",
        ),
    ],
};

const DESTINATION_TLS: Shape = Shape {
    name: "destinations.NAME.tls",
    about: "TLS to the brokers. Their certificates and host names are always verified.",
    keys: &[
        Key::required("ca", Kind::Text, "The authorities that sign the certificates of brokers, in PEM."),
        Key::new(
            "certificate",
            Kind::Text,
            "The gateway's certificate as a client, in PEM, then those that signed it.",
        ),
        Key::new("key", Kind::Text, "Its private key in PEM. Others must not be able to read it."),
    ],
};

const DESTINATION_SASL: Shape = Shape {
    name: "destinations.NAME.sasl",
    about: "Who the gateway is to the brokers.",
    keys: &[
        Key::required("mechanism", Kind::Word(&names(&Mechanism::NAMES)), "How it is proved."),
        Key::new("user", Kind::Text, "The user, for PLAIN and SCRAM."),
        Key::new("password_file", Kind::Text, "The file of the password. Others must not be able to read it."),
        Key::new("token_file", Kind::Text, "For OAUTHBEARER: the file of the token, which is read again and again."),
        Key::new(
            "plaintext",
            Kind::Bool,
            "Whether the secret may be sent without TLS, which only brokers on loopback may get. Default: false.",
        ),
    ],
};
