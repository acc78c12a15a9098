BEGIN TRANSACTION;
CREATE TABLE about (
	"key" VARCHAR(40) NOT NULL, 
	value TEXT, 
	PRIMARY KEY ("key")
);
INSERT INTO "about" VALUES('schema_version','1');
CREATE TABLE events (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(36) NOT NULL, 
	name VARCHAR(20) NOT NULL, 
	data JSON NOT NULL, 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "events" VALUES(1,'00000000-0000-4000-8000-000000000001','queued','{"position": 0}');
INSERT INTO "events" VALUES(2,'00000000-0000-4000-8000-000000000001','completed','{}');
INSERT INTO "events" VALUES(3,'00000000-0000-4000-8000-000000000002','queued','{"position": 0}');
CREATE TABLE jobs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(36) NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	client VARCHAR(64) NOT NULL, 
	service VARCHAR(40) NOT NULL, 
	owner VARCHAR(36) NOT NULL, 
	attempts INTEGER NOT NULL, 
	created FLOAT NOT NULL, 
	started FLOAT, 
	finished FLOAT, 
	model VARCHAR(255) NOT NULL, 
	work FLOAT NOT NULL, 
	spec JSON NOT NULL, 
	images JSON NOT NULL, 
	error JSON, 
	idempotency_key VARCHAR(255), 
	body_hash VARCHAR(64), 
	UNIQUE (id), 
	UNIQUE (idempotency_key)
);
INSERT INTO "jobs" VALUES(1,'00000000-0000-4000-8000-000000000001','txt2img','completed','me:program','txt2img','11111111-0000-4000-8000-000000000000',0,1.79561777288192796707e+09,1.79561777388192796711e+09,1.79561777291650128364e+09,'model.safetensors',4096.0,'{"request": {"prompt": "a red circle", "seed": 7, "width": 64, "height": 64}, "graph": {"SaveImage": {"class_type": "SaveImage", "inputs": {"filename_prefix": "20261122/00000000-0000-4000-8000-000000000001", "images": ["VAEDecode", 0]}}}, "warnings": ["steps was rounded"], "uploads": [["a.png", "dream-layer"], ["a.png", null], ["b.png", null]], "seeds": [7], "size": [64, 64], "previews": true, "repeatable": true, "output_node": null, "spelled_out": {"scheduler": "karras"}, "recipe": false}','[{"filename": "x_00001_.png", "subfolder": "20261122", "type": "output"}]','null','key','hash');
INSERT INTO "jobs" VALUES(2,'00000000-0000-4000-8000-000000000002','img2img','queued','me:program','img2img','11111111-0000-4000-8000-000000000000',0,1.79561777291760635375e+09,NULL,NULL,'',1.0,'{"request": {"prompt": "a red circle", "seed": 7, "width": 64, "height": 64}, "graph": {"SaveImage": {"class_type": "SaveImage", "inputs": {"filename_prefix": "20261122/00000000-0000-4000-8000-000000000001", "images": ["VAEDecode", 0]}}}, "warnings": ["steps was rounded"], "uploads": [], "seeds": [7], "size": null, "previews": true, "repeatable": true, "output_node": null, "spelled_out": {"scheduler": "karras"}, "recipe": false}','[]','null',NULL,NULL);
CREATE TABLE owners (
	id VARCHAR(36) NOT NULL, 
	heartbeat FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "owners" VALUES('11111111-0000-4000-8000-000000000000',1.79561777291292572018e+09);
CREATE TABLE uploads (
	job_id VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	PRIMARY KEY (job_id, name), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "uploads" VALUES('00000000-0000-4000-8000-000000000001','a.png');
INSERT INTO "uploads" VALUES('00000000-0000-4000-8000-000000000001','b.png');
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX ix_uploads_name ON uploads (name);
CREATE INDEX events_by_job ON events (job_id, number);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',2);
INSERT INTO "sqlite_sequence" VALUES('events',3);
COMMIT;
