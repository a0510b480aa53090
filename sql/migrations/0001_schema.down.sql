drop schema tidemill cascade;
