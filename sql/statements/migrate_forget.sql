-- Records that a migration was taken back. (The first one's own table is gone by then.)
delete from tidemill.migration where version = $1::int
