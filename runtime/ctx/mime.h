/* mime.h: the text of a mail: headers by RFC 5322 with RFC 2047's encoded words, bodies as quoted-printable.

   What is written is ASCII, has no line of more than 998 bytes (78 wherever there is a space to fold at), and no line
   that begins with a dot. All functions append to a td_buf, and none raises. */
#ifndef TD_MIME_H
#define TD_MIME_H

#include "failure.h"

/* A mail address as it is written: "ann@example.com" or "Ann <ann@example.com>". */
typedef struct td_address {
    const char *name; /* within the text that was parsed; name_len 0: none */
    size_t name_len;
    bool quoted; /* the name was in quotes, and may have backslashes */
    char address[256];
} td_address;

/* td_mime_check refuses what may be in no header: CR, LF, NUL, and what is not UTF-8. field is named in the message.
   Failure: invalid. */
int td_mime_check(const char *field, const char *text, size_t len, td_failure *failure) TD_MUST_CHECK;

/* td_mime_parse reads one address. Failure: invalid, with the field named. */
int td_mime_parse(const char *field, const char *text, size_t len, td_address *address,
                  td_failure *failure) TD_MUST_CHECK;

/* td_mime_header appends a header of free text that td_mime_check has passed. */
void td_mime_header(td_buf *b, const char *name, const char *text, size_t len);

/* td_mime_addresses appends a header of addresses. */
void td_mime_addresses(td_buf *b, const char *name, const td_address *addresses, size_t count);

/* td_mime_date appends a header with the time, in UTC. */
void td_mime_date(td_buf *b, int64_t time_us);

/* td_mime_part appends the headers of a body of text of the given type ("plain", "html"), an empty line, and the body.
 */
void td_mime_part(td_buf *b, const char *type, const char *text, size_t len);

/* td_mime_attachment appends the headers of an attachment and an empty line. The type is written as given, and has to
   be type/subtype, with parameters or without. Failure: invalid. */
int td_mime_attachment(td_buf *b, const char *filename, size_t filename_len, const char *type, size_t type_len,
                       td_failure *failure) TD_MUST_CHECK;

/* td_mime_base64 appends lines of base64. Of a content in pieces all but the last have a multiple of 57 bytes. */
void td_mime_base64(td_buf *b, const char *data, size_t len);

#endif
