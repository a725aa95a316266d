/* one_thread.h - how oneDNN is kept from starting threads; for this folder
   only, defined in gemm.c. */
#ifndef KERN_ONE_THREAD_H
#define KERN_ONE_THREAD_H

/* oneDNN would start a team of threads in every thread that calls it; ours
   split the work themselves. The setting belongs to the calling thread. */
void one_thread(void);

#endif
