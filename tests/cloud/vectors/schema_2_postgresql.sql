CREATE TABLE blocks ( hub TEXT NOT NULL, epoch BIGINT NOT NULL, lane TEXT NOT NULL, seq BIGINT NOT NULL, key BYTEA NOT NULL, block BYTEA NOT NULL, received_us BIGINT NOT NULL, PRIMARY KEY (hub, epoch, lane, seq) );
CREATE TABLE keys ( hub TEXT NOT NULL, id BYTEA NOT NULL, wrapped BYTEA NOT NULL, PRIMARY KEY (hub, id) );
CREATE TABLE marks ( hub TEXT NOT NULL, lane TEXT NOT NULL, epoch BIGINT NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (hub, lane, epoch) );
CREATE TABLE quarantine ( id BIGSERIAL NOT NULL, hub TEXT NOT NULL, lane TEXT, epoch BIGINT, seq BIGINT, reason TEXT NOT NULL, digest BYTEA NOT NULL, bytes BYTEA NOT NULL, received_us BIGINT NOT NULL, PRIMARY KEY (id), UNIQUE (hub, digest) );
CREATE TABLE rejected_keys ( hub TEXT NOT NULL, id BYTEA NOT NULL, digest BYTEA NOT NULL, wrapped BYTEA NOT NULL, received_us BIGINT NOT NULL, PRIMARY KEY (hub, id, digest) );
CREATE TABLE schema_version ( version INTEGER NOT NULL, PRIMARY KEY (version) );
CREATE TABLE state ( store_id BYTEA NOT NULL, commits BIGINT NOT NULL, stored BIGINT NOT NULL, quarantined BIGINT NOT NULL, conflicts BIGINT NOT NULL, key_conflicts BIGINT NOT NULL, projections_id BYTEA, batches BIGINT NOT NULL );
CREATE TABLE work ( hub TEXT NOT NULL, epoch BIGINT NOT NULL, lane TEXT NOT NULL, seq BIGINT NOT NULL, is_alert BOOLEAN NOT NULL, received_us BIGINT NOT NULL, PRIMARY KEY (hub, epoch, lane, seq) );
CREATE INDEX work_by_arrival ON work (is_alert, received_us, epoch, seq);
