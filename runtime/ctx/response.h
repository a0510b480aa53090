/* response.h: what an HTTP server answers, on its way to Lua.

   libcurl hands over the body on the loop, where Lua may not be called: it is put into a chunk of bounded size, and the
   transfer pauses when that is full, until the fiber has moved it into Lua's memory or into a file. So a body counts
   against the job's memory while it arrives, and a fast server cannot fill the process's. */
#ifndef TD_RESPONSE_H
#define TD_RESPONSE_H

#include "curl.h"

typedef struct td_response {
    td_transfer *transfer;
    size_t max_memory, max_file; /* bytes of the body, of whichever kind it is */
    size_t total;
    char *chunk;
    size_t chunk_len;
    bool full;   /* the transfer is paused */
    td_buf head; /* the header lines of the last answer */
    char *path, *part;
    int fd;        /* of part; -1: none */
    bool received; /* whole */
    bool failed;
    td_failure failure; /* when failed, and of td_response_receive */
} td_response;

/* td_response_init makes a zeroed response the receiver of a transfer that was begun; td_response_fini frees what it
   has, and removes the file if td_response_finish has not made it whole. Failure: memory, in r->failure. */
int td_response_init(td_response *r, td_transfer *transfer) TD_MUST_CHECK;
void td_response_fini(td_response *r);

/* td_response_file makes it write the body of a successful answer (2xx) to a file. It is written beside path under
   another name. Failures: invalid (there is something else than a file), io, memory, in r->failure. */
int td_response_file(td_response *r, const char *path) TD_MUST_CHECK;

/* td_response_receive(response) runs the transfer; called as a C function with the response as a light userdata, since
   it may raise for want of Lua's memory. Returns the body, or nil if that went to the file, and sets r->received; or
   nothing, with r->failure set as by td_curl_result, or: limit, io. */
int td_response_receive(lua_State *L);

/* td_response_finish gives the file its name. Failure: io, in r->failure. */
int td_response_finish(td_response *r) TD_MUST_CHECK;

/* td_response_push(response, body) returns the response as a table: status, headers, body, url, file. May raise. */
int td_response_push(lua_State *L);

#endif
