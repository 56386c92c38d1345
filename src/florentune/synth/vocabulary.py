"""The words papers are written with.

In TEMPLATES, N is a noun, A an adjective, V a verb, D an adverb, C a citation, R a reference to a figure or section,
M a symbol and # a number.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


NOUNS = _words("""
model network layer method approach data set benchmark task image feature representation attention token
sequence gradient loss objective baseline encoder decoder prompt agent policy reward state graph node edge
kernel sample distribution variance prior posterior estimator bound theorem proof algorithm system framework
pipeline module parameter weight embedding query document language corpus sentence word translation speech
signal frequency domain shift error accuracy precision recall score metric evaluation experiment ablation result
performance cost budget latency memory throughput hardware cluster training inference fine-tuning pre-training
optimisation schedule temperature field particle galaxy spectrum detector photon electron lattice phase
transition energy surface boundary flow turbulence pressure velocity cell protein gene sequence patient cohort
trial treatment outcome survey market price agent household region country climate ocean rainfall sensor robot
trajectory controller camera scene object mask depth pose shape texture resolution patch vocabulary dialogue
user preference annotation label class cluster hypothesis assumption condition constraint equation matrix vector
tensor manifold operator function space measure simulation architecture convolution backbone head block residual
channel dropout batch epoch seed checkpoint knowledge reasoning chain step answer question context window
retrieval passage index memory tool code program generation diffusion noise score sampler guidance likelihood
entropy divergence mixture component expert router compression quantization pruning sparsity bit rank subspace
projection basis coefficient threshold margin
""")
ADJECTIVES = _words("""
large small deep shallow robust efficient sparse dense linear nonlinear stochastic deterministic convex smooth
local global hierarchical recurrent convolutional pretrained supervised unsupervised multimodal visual textual
temporal spatial causal optimal approximate exact novel simple strong weak consistent significant relevant
available recent previous different similar common standard popular complex challenging diverse synthetic real
high-dimensional low-rank end-to-end fine-grained long-range zero-shot few-shot open-source domain-specific
state-of-the-art task-agnostic magnetic thermal periodic chiral stellar clinical genetic empirical theoretical
""")
VERBS = _words("""
propose introduce present develop evaluate compare analyse study investigate demonstrate show observe find
derive prove estimate compute train optimise learn extend generalise improve outperform reduce increase leverage
exploit combine integrate sample select filter measure report describe consider define adopt follow apply employ
construct design build collect annotate release
""")
ADVERBS = _words("""
significantly substantially consistently slightly notably typically generally jointly independently effectively
efficiently directly empirically theoretically previously recently further also often carefully
""")
LINKS = _words("""
However Moreover Furthermore In-addition Consequently Therefore Specifically In-particular For-example
By-contrast Intuitively Note-that Finally First Second Similarly As-a-result Hence Interestingly Empirically
""")
NAMES = _words("""
Adams Baker Chen Wang Zhang Li Liu Kumar Singh Gupta Tanaka Suzuki Kim Park Lee Nguyen Tran Garcia Lopez Silva
Santos Rossi Bianchi Muller Schmidt Weber Dubois Martin Novak Kowalski Ivanov Petrov Johnson Smith Brown Davis
Wilson Taylor Clark Hall Young King Wright Scott Green Hill Yamada Sato Cohen Levy Hassan Ali Khan Rahman Olsen
Berg Larsen Virtanen Papadopoulos Yilmaz Okafor Mensah Abebe Fischer Huang Zhao Wu Zhou Xu Sun Hu Guo He Lin Luo
""")
FIRST = _words("""
Anna Ben Carlos Dina Elena Feng Grace Hiro Ivan Jia Kenji Laura Marco Nina Omar Priya Qing Rosa Sven Tara Uma
Victor Wei Xin Yuki Zoe Alex Bo Chloe David Emma Felix Hannah Igor Julia Kevin Linh Maria Noah Olga Paul Ravi
Sara Thomas Yang Yu Jun Min Hao
""")
PLACES = _phrases("""
University of Northfield | Institute for Advanced Computing | Eastlake University
| National Laboratory of Physics | Department of Computer Science, Rivertown University
| School of Engineering, Westbrook | Orion Research | Meridian AI | Max Huber Institute
| Technical University of Lakeside | Kestrel Labs | College of Information, Southgate University
| Center for Data Science, Hillcrest | Faculty of Mathematics, Elm University
""")
SYMBOLS = _phrases("""
$x_i$ | $theta$ | $alpha$ | $beta in RR^d$ | $f(x)$ | $cal(L)$ | $p(y bar.v x)$ | $bold(W)$ | $O(n log n)$
| $k = 5$ | $lambda$ | $epsilon > 0$ | $sigma^2$ | $bold(h)_t$ | $n times d$ | $eta = 10^(-4)$ | $hat(y)$
| $cal(D)$ | $phi.alt(x)$ | $T = 0.7$ | $EE[X]$ | $delta_(i j)$ | $s_t$ | $a_t$ | $pi_theta$
| $q_phi (z bar.v x)$ | $nabla_theta cal(L)$ | $Omega$ | $mu$ | $G = (V, E)$ | $m_chi$ | $tau$ | $ell_2$
| $d_k$ | $N$ | $K$
""")
TEMPLATES = _phrases("""
We V a A N that D improves the N of A N | The N of the N is A and depends on the A N
| Our N D V the N by using a A N with A N | A N are A in A N, which makes the N of N A
| In this N, we V the A N between N and N C | To V the N, we V a N with M A N
| Previous work V the N of N C, but the A N remains A | The A N D outperforms the N by # points on the N N
| When the N is A, the N of M is A and the N D decreases | This N is A because the N of each N is A
| We V M as the N of the N, where M is the A N | It is A to V the N without A N or A N C
| Given a N M, the N is to V the A N of the N | As shown in R, the A N D V the N by # % over the A N
| There are # N in the N, with # A N for each N | The results in R V that A N are A for A N
| We use the N of C with a N of # and a A N of # | Each N is V into A N, and the N is A
| Let M be the A N and let M denote the N of N | Both N and N are A when the N is V by the N
| These N suggest that A N V the N of A N even if the N is A
| While A N can V the N, they D V A N at the N of N | For all N, we V the N N and V the N D
| Following C, we D V the N with # N and a N of size # | The N between M and M gives the A N of the N
""")
STATISTICS = _words("""
population employment exports imports households income expenditure production energy electricity transport freight
passengers vehicles roads hospitals schools pupils students teachers enterprises turnover investment agriculture
fisheries forestry land area dwellings tourism nights arrivals prices index wages unemployment men women children
births deaths migration capital regions municipalities budget revenue taxes contributions benefits loans funds
projects staff activities measures programmes services industry construction trade retail water waste emissions
gross net total other average annual domestic foreign public private rural urban national regional
""")
