-- A data file of schema version 1, as the version before pictures left it:
-- a collection "old" with three items, a pair and an alias. Over 0001_init.sql.
UPDATE counters SET value = 3 WHERE name = 'item';
INSERT INTO collections VALUES(1,'old','{"encoder":"static","dims":32,"template":"{title}\n{text}","encoder_config":{"buckets":1024,"dims":32,"max_words":8192,"ngram_max":5,"ngram_min":3,"seed":1}}','{"description":"","train":{"every_pairs":0,"every_seconds":0,"min_pairs":200,"min_groups":50,"budget_seconds":0,"options":{}}}',1,0,0,2,3,3,0,1795469347027,1795469347027,0);
INSERT INTO aliases VALUES('alte',1,1795469347184);
INSERT INTO items VALUES(1,1,1,1795469347096,1795469347096,X'30eb4a3565e978e1e7c70cb45e94a0fc','pear','Pear',NULL,'a sweet green fruit');
INSERT INTO items VALUES(2,1,2,1795469347096,1795469347096,X'c133779b03362e94e3d8f26234df239b','plum',NULL,'{"n":2}','a small blue fruit');
INSERT INTO items VALUES(3,1,3,1795469347096,1795469347096,X'bcc39e313bf679233e2507806d8d9d01','lathe',NULL,NULL,'a machine that turns metal');
INSERT INTO spaces VALUES(1,1,X'63ece7d9bb2fc9c69042f032e2a74f31e15ddd668ee2cfab9e1d39d42f1d84fe',32,3,0);
INSERT INTO embeddings VALUES(1099511627777,X'651483bdc1a92dbdbbf96bbeeb365bbe8572d03d85a0653daffd813df2edfc3dd4164e3d81f8813e99cd06be67ac123e066e813d6b74903bcf365f3e6512c23d5bbab23d13838f3e38900cbec37d223e067b19be403b05be6bbc993e57a972be90b223be4dcce43c8a8b9cbeef4c2ebde1519d3e6278fd3d2e4f0b3e7c82b9be');
INSERT INTO embeddings VALUES(1099511627778,X'4a345abd70a7bd3eac8beabbcf673fbec27dc9bddd0fc2bd93e51cbe1f27153e539c2d3e4a63b0bc2cba203d1b2592be91d738bd901f2d3e56149c3d43fc573cd7d50f3ee3280abd07c843be3d65cd3e99e7a2bd3e3131be811bc73dd9cabf3dfa633a3ec9cc4abe0aee5bbecd7a02be384d213e1fd80dbe1615aa3e9cf466be');
INSERT INTO embeddings VALUES(1099511627779,X'ada15c3e78cd76bd411f63be575d423d1a3d243e82b78f3d5f38c5bcc6b5e13d78d8973e4d00fb3d7a849fbd70fa823e575f35bd37d3a4bdbaad823d9736143d0ea3acbe71c88a3c1dc0c5bdad87bcbd640562bed17c023e748cee3d42a531be8ff3923cd3adac3d9dadb63e21f68cbee17f123ed52f723ed7d5b23e6f68073e');
INSERT INTO generations VALUES(1,1,1,0,1,32,X'63ece7d9bb2fc9c69042f032e2a74f31e15ddd668ee2cfab9e1d39d42f1d84fe',1,0,0.050000000000000002775,'static','{"buckets":1024,"dims":32,"max_words":8192,"ngram_max":5,"ngram_min":3,"seed":1}',NULL,0,0,0,0,1795469347027,1795469347027,0,0,NULL,0);
INSERT INTO pairs VALUES(1,1,X'99ef2c4123bade71bd471c17802b02c9',0,0,0,1.0,-4052956859196720283,1795469347149,NULL,'fruit','pear',NULL,NULL,NULL,'api');
