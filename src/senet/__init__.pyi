# The public interface: one line for each package, the only list of these names.
from .benchmark import Bench as Bench
from .benchmark import bench as bench
from .costs import Cost as Cost
from .costs import cost as cost
from .data import ImageData as ImageData
from .data import open_data as open_data
from .deployment import DeployReport as DeployReport
from .deployment import ExportedNetwork as ExportedNetwork
from .deployment import deploy as deploy
from .deployment import load_exported as load_exported
from .deployment.export import ExportReport as ExportReport
from .deployment.export import export as export
from .evaluation import Evaluation as Evaluation
from .evaluation import Prediction as Prediction
from .fusion import FuseReport as FuseReport
from .fusion import fuse as fuse
from .fusion import unfuse as unfuse
from .gates import GateMonitor as GateMonitor
from .gates import Gates as Gates
from .gates import fold_gates as fold_gates
from .gates import load_gates as load_gates
from .gates import record_gates as record_gates
from .graph.se_kinds import register_se as register_se
from .hub import push_to_hub as push_to_hub
from .insertion import Site as Site
from .insertion import find_sites as find_sites
from .insertion import freeze_except_se as freeze_except_se
from .insertion import insert as insert
from .insertion import param_groups as param_groups
from .insertion import remove as remove
from .insertion import set_window as set_window
from .insertion import unfreeze as unfreeze
from .model_file import load as load
from .model_file import save as save
from .models import create_model as create_model
from .models import list_models as list_models
from .nn import (
    SEBatchNorm as SEBatchNorm,
)
from .nn import (
    SqueezeExcitation as SqueezeExcitation,
)
from .nn import (
    convert_sync_batchnorm as convert_sync_batchnorm,
)
from .nn import (
    freeze_batch_norm as freeze_batch_norm,
)
from .nn import (
    set_fused as set_fused,
)
from .nn import (
    update_bn as update_bn,
)
from .recipes import Recipe as Recipe
from .recipes import list_recipes as list_recipes
from .recipes import load_recipe as load_recipe
from .tasks import evaluate as evaluate
from .tasks import predict as predict
from .training import LRCurve as LRCurve
from .training import find_lr as find_lr
from .training import train as train
from .utils.errors import (
    DataError as DataError,
)
from .utils.errors import (
    DataWarning as DataWarning,
)
from .utils.errors import (
    ExportError as ExportError,
)
from .utils.errors import (
    GatesError as GatesError,
)
from .utils.errors import (
    ModelFileError as ModelFileError,
)
from .utils.errors import (
    NonFiniteError as NonFiniteError,
)
from .utils.errors import (
    SenetError as SenetError,
)
from .utils.errors import (
    TrainingError as TrainingError,
)
from .version import __version__ as __version__
from .weights import WeightsReport as WeightsReport
from .weights import load_weights as load_weights
