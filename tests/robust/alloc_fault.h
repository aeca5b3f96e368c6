/* robust/alloc_fault.h - every call of base/mem.h, counted by its place in the code, and one of them made to fail. The
 * program is linked with --wrap for each function. */
#ifndef ALLOC_FAULT_H
#define ALLOC_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* Starts counting; call number `call` (from 0) at `site` will fail. NULL: none. */
void alloc_fault_begin(const void *site, int64_t call);
bool alloc_fault_injected(void);
/* Blocks that were allocated since and not freed. */
int64_t alloc_fault_live(void);
int alloc_fault_sites(void);
const void *alloc_fault_site(int index, int64_t *calls);

#endif
